"""Stand-ins for vLLM's batches: they drive our processors by the V1 and V2 interfaces the way the model runners do.

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

from actors.tti_processor import TTIProcessorV1
from actors.tti_processor_v2 import TTIProcessorV2
from actors.tti_request import Request
from actors.tti_slots import SlotTable

INTERFACES = ("v1", "v1 tensors", "v2")
"""Ways to a processor; "v1 tensors" is the V1 interface on arrays as a GPU has them."""

Processor = TTIProcessorV1 | TTIProcessorV2


def processor_over(pieces: list[str], max_rows: int = 8, max_length: int = 64, interface: str = "v1") -> Processor:
    """A processor without an engine."""
    tensors = interface != "v1"
    slots = SlotTable(PieceTokenizer(pieces), len(pieces), max_rows, max_length, torch.device("cpu"), tensors)
    return TTIProcessorV2(slots, FakeStates(64, 128, len(pieces))) if interface == "v2" else TTIProcessorV1(slots)


def batch_over(processor: Processor) -> FakeBatch:
    return FakeBatchV2(processor) if isinstance(processor, TTIProcessorV2) else FakeBatch(processor)


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
    params = SamplingParams(max_tokens=max_tokens, extra_args=Request(id=name, **asked).extra_args())
    return FakeRequest(name, logits_at, params, seed, eos)


class FakeBatch:
    """Rows of requests over one processor."""

    def __init__(self, processor: Any) -> None:
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
        forced = self._apply(logits)
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

    def _apply(self, logits: torch.Tensor) -> torch.Tensor:
        return self.processor.apply(logits)

    def preempt(self, request: FakeRequest) -> None:
        """Takes a request out of its row; `add` brings it back with its tokens, in a list of its own."""
        self.remove(request)
        request.output = list(request.output)


class FakeBuffer:
    """A vLLM buffer: `np` on the host and `gpu` on the device are one here."""

    def __init__(self, *size: int) -> None:
        self.gpu = torch.zeros(size, dtype=torch.int32)
        self.np = self.gpu.numpy()


class FakeStates:
    """What Model Runner V2 shows of its requests."""

    def __init__(self, max_num_reqs: int, max_model_len: int, vocab_size: int) -> None:
        self.device, self.max_num_reqs, self.vocab_size = torch.device("cpu"), max_num_reqs, vocab_size
        self.all_token_ids = FakeBuffer(max_num_reqs, max_model_len)
        self.prompt_len, self.prefill_len, self.total_len = (FakeBuffer(max_num_reqs) for _ in range(3))


@dataclass
class FakeContext:
    idx_mapping: torch.Tensor
    idx_mapping_np: np.ndarray


class FakeBatchV2(FakeBatch):
    """Requests keep a slot of the runner's while they are in it, and sit in another row each step."""

    PROMPT = (1, 2, 3)

    def __init__(self, processor: TTIProcessorV2) -> None:
        super().__init__(processor)
        self.states: Any = processor._states
        self.slot_of: dict[str, int] = {}
        self.free = list(range(self.states.max_num_reqs))
        self.order = np.random.default_rng(0)

    def _refresh(self) -> None:
        for row in sorted(self.removed, reverse=True):
            self.free.append(self.slot_of.pop(self.rows.pop(row).id))
        for request in self.added:
            slot = self.slot_of[request.id] = self.free.pop()
            tokens = [*self.PROMPT, *request.output]
            self.states.all_token_ids.np[slot, : len(tokens)] = tokens
            self.states.prompt_len.np[slot] = len(self.PROMPT)
            self.states.prefill_len.np[slot] = self.states.total_len.np[slot] = len(tokens)
            self.processor.add_request(slot, request.params)
            self.rows.append(request)
        self.processor.apply_staged_writes()
        self.rows = [self.rows[row] for row in self.order.permutation(len(self.rows))]
        self.removed, self.added, self.swaps = [], [], []

    def _apply(self, logits: torch.Tensor) -> torch.Tensor:
        slots = np.array([self.slot_of[request.id] for request in self.rows])
        for slot, request in zip(slots, self.rows, strict=True):
            output = [token for token in request.output if token >= 0]
            self.states.total_len.np[slot] = len(self.PROMPT) + len(output)
            self.states.all_token_ids.np[slot, len(self.PROMPT) : len(self.PROMPT) + len(output)] = output
        return self.processor.apply(logits, FakeContext(torch.from_numpy(slots), slots))


def run_alone(processor: Processor, request: FakeRequest) -> dict[str, Any]:
    """The whole reply of one request in a batch of its own, and its statistics."""
    batch = batch_over(processor)
    batch.add(request)
    while not request.over:
        batch.step()
    batch.remove(request)
    statistics = processor.take([(request.id, request.output)])[0]
    assert statistics is not None
    batch._refresh()
    return statistics
