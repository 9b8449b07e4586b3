"""A stand-in for vLLM's persistent batch: drives `TTIProcessor` by the V1 interface the way the model runner does.

Requests sit in rows; the batch can grow, condense, swap rows, preempt a request and take it back, throw a row's token
away, and show placeholders as async scheduling does. Everything random about a request depends on the request alone,
so its reply must not depend on what happens to the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality

from actors.tti_processor import TTIProcessor
from actors.tti_slots import SlotTable


def processor_over(pieces: list[str], max_rows: int = 8, max_length: int = 64, tensors: bool = False) -> TTIProcessor:
    """A processor without an engine; `tensors` takes the path that a GPU takes."""
    slots = SlotTable(PieceTokenizer(pieces), len(pieces), max_rows, max_length, torch.device("cpu"), tensors)
    return TTIProcessor.over(slots)


class PieceTokenizer:
    """Tokens are given texts; encoding takes the longest piece that fits."""

    def __init__(self, pieces: list[str]) -> None:
        self.pieces = pieces

    def __len__(self) -> int:
        return len(self.pieces)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        tokens: list[int] = []
        while text:
            fitting = [i for i, piece in enumerate(self.pieces) if piece and text.startswith(piece)]
            if not fitting:
                text = text[1:]
                continue
            best = max(fitting, key=lambda i: len(self.pieces[i]))
            tokens.append(best)
            text = text[len(self.pieces[best]) :]
        return tokens

    def decode(self, token_ids: list[int]) -> str:
        return "".join(self.pieces[i] for i in token_ids)

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str | None]:
        return [self.pieces[i] for i in ids]


@dataclass
class FakeRequest:
    """One request: `logits_at(position)` is what the model says, `params` what vLLM is told."""

    id: str
    logits_at: Callable[[int], np.ndarray]
    params: SamplingParams
    seed: int
    eos: int = -1
    output: list[int] = field(default_factory=list)

    def sample(self, position: int, logits: np.ndarray) -> int:
        noise = np.random.default_rng((self.seed, position)).gumbel(size=len(logits))
        logits = np.nan_to_num(np.asarray(logits, np.float64), nan=-1e30, posinf=1e30, neginf=-np.inf)
        return int(np.argmax(logits + noise))

    @property
    def over(self) -> bool:
        done = len(self.output) >= (self.params.max_tokens or 0)
        return done or (bool(self.output) and self.output[-1] == self.eos)


def fake_request(
    name: str, logits_at: Callable[[int], np.ndarray], seed: int, max_tokens: int, **asked: Any
) -> FakeRequest:
    """A request that takes part in t2po with these settings."""
    eos = asked.pop("eos", -1)
    params = SamplingParams(max_tokens=max_tokens, extra_args={"t2po": {"id": name, **asked}})
    return FakeRequest(name, logits_at, params, seed, eos)


class FakeBatch:
    """Rows of requests over one processor."""

    def __init__(self, processor: TTIProcessor) -> None:
        self.processor = processor
        self.rows: list[FakeRequest] = []
        self.removed: list[int] = []
        self.added: list[FakeRequest] = []
        self.swaps: list[tuple[int, int]] = []

    def add(self, request: FakeRequest) -> None:
        self.added.append(request)

    def remove(self, request: FakeRequest) -> None:
        self.removed.append(self.rows.index(request))

    def _refresh(self) -> None:
        """Tells the processor what changed, in the order and manner of vLLM's input batch."""
        rows: list[FakeRequest | None] = list(self.rows)
        holes = sorted(self.removed)
        for hole in holes:
            rows[hole] = None
        added, moved = [], []
        for request in self.added:
            if holes:
                row = holes.pop(0)
                rows[row] = request
            else:
                row = len(rows)
                rows.append(request)
            added.append((row, request.params, [1, 2, 3], request.output))
        while holes:  # condense: the last request slides down into the lowest hole
            while rows and rows[-1] is None:
                rows.pop()
            holes = [hole for hole in holes if hole < len(rows)]
            if not holes:
                break
            hole, last = holes.pop(0), len(rows) - 1
            rows[hole] = rows.pop()
            moved.append((last, hole, MoveDirectionality.UNIDIRECTIONAL))
        removed = sorted((row for row in self.removed if row not in {a[0] for a in added}), reverse=True)
        for a, b in self.swaps:
            if max(a, b) < len(rows):
                rows[a], rows[b] = rows[b], rows[a]
                moved.append((a, b, MoveDirectionality.SWAP))
        self.rows = [row for row in rows if row is not None]
        update = BatchUpdate(len(self.rows), removed, added, moved) if removed or added or moved else None
        self.removed, self.added, self.swaps = [], [], []
        self.processor.update_state(update)

    def step(self, discard: Collection[str] = (), placeholders: bool = False) -> None:
        """One engine step; the tokens of requests in `discard` are thrown away."""
        self._refresh()
        if not self.rows:
            return
        logits = torch.from_numpy(np.stack([r.logits_at(len(r.output)) for r in self.rows]).astype(np.float32))
        if placeholders:  # async scheduling: rows whose token nobody will patch show a placeholder
            for request in self.rows:
                if request.id in discard:
                    request.output.append(-1)
        forced = self.processor.apply(logits)
        for row, request in enumerate(self.rows):
            if request.output and request.output[-1] == -1:
                request.output.pop()
            if request.id not in discard:
                position = len(request.output)
                raw = np.asarray(request.logits_at(position), np.float64)
                row_logits = forced[row].numpy()
                changed = not np.array_equal(row_logits, raw.astype(np.float32), equal_nan=True)
                if changed:  # a forced row has one token left
                    assert np.isneginf(row_logits).sum() == len(row_logits) - 1
                request.output.append(int(np.argmax(row_logits)) if changed else request.sample(position, raw))

    def preempt(self, request: FakeRequest) -> None:
        """Takes a request out of its row; `add` brings it back with its tokens, in a list of its own."""
        self.remove(request)
        request.output = list(request.output)


def run_alone(processor: TTIProcessor, request: FakeRequest) -> dict[str, Any]:
    """The whole reply of one request in a batch of its own, and its statistics."""
    batch = FakeBatch(processor)
    batch.add(request)
    while not request.over:
        batch.step()
    batch.remove(request)
    statistics = processor.take([(request.id, len(request.output))])[0]
    assert statistics is not None
    batch._refresh()
    return statistics
