"""TTI inside vLLM: the V1 logits processor, and the worker extension that hands its statistics out.

Owns: which request sits in which batch row, the state of each request (it outlives row moves and preemption),
what a request may ask for, and the statistics of finished requests. vLLM loads both classes in its worker process;
`actors.inference` names them. Must not know: the formulas (`actors.uncertainty`), trajectories, Ray.

A request takes part by `SamplingParams.extra_args["t2po"]`, a dict:
  id            text, unique among live requests: its statistics are asked for by it
  tti           whether thoughts may be ended (False: only measured)
  range         [entropy min, max, confidence min, max] carried from earlier turns; absent or null: none
  alpha, epsilon, window, min_tokens, think_cap, top_j, queue, starts_inside    see `Request`
Requests without it are untouched.

How a token is counted: vLLM shows rows whose token it later throws away (chunked prefill, preemption, async
scheduling). So each request has two states: `committed`, before the token at hand, and `pending`, as if it were
accepted. When the request's output has grown the pending state is committed; when not, the row is measured again
from the committed one. Model Runner V2 has another interface and is not supported yet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality

import actors.weight_transfer  # noqa: F401  registers the weight transfer engine in the worker process
from actors import uncertainty
from actors.think_markers import DEFAULT_QUEUE, Tokenizer, build_automaton, queue_tokens, token_pieces
from actors.uncertainty import Column, Queues, Settings, ThoughtTable

if TYPE_CHECKING:
    from vllm.config import VllmConfig

EXTRA_ARGS_KEY = "t2po"
FIRED_NAMES = ("", "uncertainty", "cap")
_EMPTY_RANGE = (math.inf, -math.inf, math.inf, -math.inf)
_ENTROPY, _CONFIDENCE, _M = range(3)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What one request asks for; the meaning of the numbers is that of `actors.settings.TTISettings`."""

    id: str
    tti: bool = True
    range: Sequence[float] | None = None
    alpha: float = 0.4
    epsilon: float = 0.05
    window: int = 3
    min_tokens: int = 6
    think_cap: int = 40
    top_j: int = 20
    queue: str = DEFAULT_QUEUE
    starts_inside: bool = False  # the prompt ends with the opening marker

    def __post_init__(self) -> None:
        problems = [
            f"{name} = {getattr(self, name)!r} must be {rule}"
            for name, rule, good in (
                ("id", "a text that is not empty", isinstance(self.id, str) and self.id != ""),
                ("range", "4 numbers or null", self.range is None or len(self.range) == 4),
                ("alpha", "from 0 to 1", 0 <= self.alpha <= 1),
                ("epsilon", "at least 0", self.epsilon >= 0),
                ("window", "from 1 to 1000", 1 <= self.window <= 1000),
                ("min_tokens", "at least 1", self.min_tokens >= 1),
                ("think_cap", "at least 1", self.think_cap >= 1),
                ("top_j", "at least 1", self.top_j >= 1),
            )
            if not good
        ]
        if problems:
            raise ValueError(f"extra_args[{EXTRA_ARGS_KEY!r}]: {'; '.join(problems)}")

    @classmethod
    def of(cls, params: SamplingParams) -> Request | None:
        asked = (params.extra_args or {}).get(EXTRA_ARGS_KEY)
        if asked is None:
            return None
        known = {f.name for f in fields(cls)}
        if not isinstance(asked, dict) or "id" not in asked or not set(asked) <= known:
            raise ValueError(f"extra_args[{EXTRA_ARGS_KEY!r}] = {asked!r}: needs id, may have {sorted(known - {'id'})}")
        return cls(**asked)


@dataclass
class _Slot:
    """One live request: its place in the state tensors, what it asked for, and vLLM's own list of its output."""

    index: int
    request: Request
    output: list[int]
    max_tokens: int
    queue_id: int
    committed: int = 0  # tokens in the committed state
    measured: bool = False  # whether the pending state holds token `committed`
    lost: bool = False  # its output is not what we followed: measured no more


@dataclass
class _Batch:
    """Tensors that only change with the batch."""

    slots: list[_Slot]
    rows: torch.Tensor
    indices: torch.Tensor
    settings: Settings
    top_j: int | torch.Tensor
    all_rows: bool
    outputs: list[list[int]] = field(default_factory=list)


class TTIProcessor(LogitsProcessor):
    """Measures M of every t2po row and forces the queue where a thought is over."""

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        Request.of(sampling_params)

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        from vllm.tokenizers import cached_tokenizer_from_config

        model = vllm_config.model_config
        self._set_up(
            cached_tokenizer_from_config(model),
            model.get_vocab_size(),
            vllm_config.scheduler_config.max_num_seqs,
            model.max_model_len,
            device,
        )

    @classmethod
    def with_tokenizer(
        cls, tokenizer: Tokenizer, vocabulary: int, max_rows: int, max_length: int, device: str = "cpu"
    ) -> TTIProcessor:
        """A processor without an engine (tests, cost measurements)."""
        processor = cls.__new__(cls)
        processor._set_up(tokenizer, vocabulary, max_rows, max_length, torch.device(device))
        return processor

    def _set_up(
        self, tokenizer: Tokenizer, vocabulary: int, max_rows: int, max_length: int, device: torch.device
    ) -> None:
        self._tokenizer = tokenizer
        self._device = device
        self._max_length = max_length
        self._automaton = build_automaton(token_pieces(tokenizer, vocabulary))
        self._table = ThoughtTable(
            torch.from_numpy(self._automaton.next_state).to(device),
            self._automaton.first_inside,
            self._automaton.done,
        )
        self._queue_ids: dict[str, int] = {}
        self._queue_lists: list[list[int]] = []
        self._queues = Queues(torch.zeros(0, 1, dtype=torch.long), torch.zeros(0, dtype=torch.long))
        self._rows: dict[int, _Slot] = {}  # batch row -> request
        self._by_id: dict[str, _Slot] = {}
        self._free: list[int] = []
        self._window_size = 4
        self._history_length = 64
        self._state = torch.zeros(0)
        self._history = torch.zeros(0)
        self._batch: _Batch | None = None
        # Requests that left the batch and were never asked for (a client without `take`) may not pile up.
        self._max_slots = 8 * max_rows + 64
        self._grow_slots(max_rows)

    def is_argmax_invariant(self) -> bool:
        return False

    # ---- which request sits in which row ----

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        if batch_update is None:
            return
        self._batch = None
        for row in batch_update.removed:
            self._rows.pop(row, None)
        for row, params, _, output in batch_update.added:
            self._rows.pop(row, None)
            request = Request.of(params)
            if request is not None:
                self._rows[row] = self._admit(request, output, params.max_tokens)
        for source, target, direction in batch_update.moved:
            moving, replaced = self._rows.pop(source, None), self._rows.pop(target, None)
            if moving is not None:
                self._rows[target] = moving
            if direction is MoveDirectionality.SWAP and replaced is not None:
                self._rows[source] = replaced

    def _admit(self, request: Request, output: list[int], max_tokens: int | None) -> _Slot:
        """The slot of a request that enters the batch; one that comes back after preemption finds its own."""
        known = self._by_id.get(request.id)
        if known is not None and len(_without_placeholders(output)) >= known.committed:
            known.output = output
            return known
        if known is not None:
            self._release(known)
        if not self._free and len(self._by_id) >= self._max_slots:
            in_batch = {id(slot) for slot in self._rows.values()}
            self._release(next(slot for slot in self._by_id.values() if id(slot) not in in_batch))
        if not self._free:
            self._grow_slots(len(self._state))
        limit = min(max_tokens or self._max_length, self._max_length)
        self._make_room(request.window + 1, limit)
        slot = _Slot(self._free.pop(), request, output, limit, self._queue_id(request.queue))
        self._by_id[request.id] = slot
        carried = torch.tensor([request.range or _EMPTY_RANGE], dtype=torch.float64)
        machine = torch.tensor([self._automaton.first_inside if request.starts_inside else 0])
        self._state[slot.index] = uncertainty.initial_state(carried, machine, self._window_size).to(self._device)
        slot.lost = len(_without_placeholders(output)) > 0
        return slot

    def _queue_id(self, text: str) -> int:
        if text not in self._queue_ids:
            self._queue_lists.append(queue_tokens(self._tokenizer, text, self._automaton))
            self._queue_ids[text] = len(self._queue_lists) - 1
            longest = max(map(len, self._queue_lists))
            padded = [tokens + [0] * (longest - len(tokens)) for tokens in self._queue_lists]
            self._queues = Queues(
                torch.tensor(padded, device=self._device),
                torch.tensor([len(tokens) for tokens in self._queue_lists], device=self._device),
            )
        return self._queue_ids[text]

    def _grow_slots(self, count: int) -> None:
        have = len(self._state)
        width = len(Column) + self._window_size
        state = torch.zeros(have + count, 2, width, dtype=torch.float64, device=self._device)
        history = torch.full((have + count, self._history_length, 3), torch.nan, device=self._device)
        if have:
            state[:have], history[:have] = self._state, self._history
        self._state, self._history = state, history
        self._free.extend(range(have + count - 1, have - 1, -1))

    def _make_room(self, window_size: int, reply_length: int) -> None:
        """Widens the windows (new columns on the old end) and lengthens the histories to what a request needs."""
        if window_size > self._window_size:
            extra = window_size - self._window_size
            named, window = self._state.split((len(Column), self._window_size), dim=2)
            blank = torch.zeros(*named.shape[:2], extra, dtype=torch.float64, device=self._device)
            self._state, self._window_size = torch.cat((named, blank, window), 2), window_size
        if reply_length > self._history_length:
            extra = max(reply_length, min(2 * self._history_length, self._max_length)) - self._history_length
            blank = torch.full((len(self._history), extra, 3), torch.nan, device=self._device)
            self._history, self._history_length = torch.cat((self._history, blank), 1), self._history_length + extra

    def _release(self, slot: _Slot) -> None:
        del self._by_id[slot.request.id]
        self._free.append(slot.index)

    # ---- one step ----

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        if not self._rows:
            return logits
        batch = self._batch
        if batch is None:
            batch = self._batch = self._make_batch(len(logits))
        if not batch.slots:
            return logits
        # vLLM shows outputs as Python lists only: this loop is the one place that looks at them row by row.
        grown, tokens, positions = [], [], []
        followed = True
        for slot, output in zip(batch.slots, batch.outputs, strict=True):
            length = len(output)
            if length and output[-1] < 0:
                length = len(_without_placeholders(output))
            grows = slot.measured and length == slot.committed + 1
            if not grows and length != slot.committed:
                slot.lost, followed = True, False
            grown.append(grows)
            tokens.append(output[length - 1] if grows else 0)
            positions.append(length)
        if not followed:
            self._batch = None
            return self.apply(logits)
        for slot, position in zip(batch.slots, positions, strict=True):
            slot.committed, slot.measured = position, True
        self._step(logits, batch, *torch.from_numpy(np.array((tokens, positions, grown))).to(self._device))
        return logits

    def _step(
        self, logits: torch.Tensor, batch: _Batch, token: torch.Tensor, position: torch.Tensor, grown: torch.Tensor
    ) -> None:
        """Measures one token of each row of the batch and forces where it must; all tensors [B]."""
        known = grown.bool()
        both = self._state[batch.indices]
        committed = torch.where(known[:, None], both[:, 1], both[:, 0])
        committed = uncertainty.accept(committed, token, known, self._table)
        raw = logits if batch.all_rows else logits[batch.rows]
        entropy, confidence = uncertainty.entropy_and_confidence(raw, batch.top_j)
        pending, m, force = uncertainty.measure(
            committed, batch.settings, entropy, confidence, position, self._table, self._queues
        )
        self._state[batch.indices] = torch.stack((committed, pending), 1)
        self._history[batch.indices, position] = torch.stack((entropy, confidence, m), 1).float()
        forced = force >= 0
        if forced.any():
            rows = batch.rows[forced]
            logits[rows] = -torch.inf
            logits[rows, force[forced]] = 0.0

    def _make_batch(self, num_rows: int) -> _Batch:
        placed = [(row, slot) for row, slot in sorted(self._rows.items()) if row < num_rows and not slot.lost]
        slots = [slot for _, slot in placed]
        asked = [slot.request for slot in slots]

        def floats(values: list[float]) -> torch.Tensor:
            return torch.tensor(values, dtype=torch.float64, device=self._device)

        def whole(values: list[int]) -> torch.Tensor:
            return torch.tensor(values, dtype=torch.long, device=self._device)

        window = floats([r.window for r in asked])
        age = torch.arange(self._window_size - 1, -1, -1, device=self._device)
        settings = Settings(
            alpha=floats([r.alpha for r in asked]),
            epsilon=floats([r.epsilon for r in asked]),
            min_tokens=floats([r.min_tokens for r in asked]),
            window=window,
            think_cap=floats([r.think_cap for r in asked]),
            enabled=whole([r.tti for r in asked]).bool(),
            max_tokens=whole([slot.max_tokens for slot in slots]),
            queue_id=whole([slot.queue_id for slot in slots]),
            weights=torch.where(age[None, :] <= window[:, None], 1 / (window[:, None] + 1), 0.0),
        )
        top_js = {r.top_j for r in asked}
        return _Batch(
            slots=slots,
            rows=whole([row for row, _ in placed]),
            indices=whole([slot.index for slot in slots]),
            settings=settings,
            top_j=top_js.pop() if len(top_js) == 1 else whole([r.top_j for r in asked]),
            all_rows=len(placed) == num_rows,
            outputs=[slot.output for slot in slots],
        )

    # ---- statistics ----

    def take(self, finished: Sequence[tuple[str, int]], dropped: Sequence[str] = ()) -> list[dict[str, Any] | None]:
        """Statistics of `finished` (id, number of tokens in the reply), in order, None if unknown; frees both."""
        taken = [self._take(request_id, count) for request_id, count in finished]
        for request_id in dropped:
            self._forget(request_id)
        return taken

    def _take(self, request_id: str, count: int) -> dict[str, Any] | None:
        slot = self._by_id.get(request_id)
        if slot is None:
            return None
        history = self._history[slot.index, :count].cpu().numpy()
        pending = slot.measured and count == slot.committed + 1
        last = self._state[slot.index, int(pending)].tolist()
        fired_at = int(last[Column.FIRED_AT])
        signal_range = last[:4]
        if not slot.lost and not pending and count != slot.committed:
            # Async scheduling measured tokens beyond the end of the reply: what they did to the range is undone.
            fired_at = fired_at if fired_at < count else -1
            signal_range = _range_of(slot.request.range or _EMPTY_RANGE, history)
        fired = FIRED_NAMES[int(last[Column.FIRED])] if fired_at >= 0 else ""
        thinking = self._automaton.thought_length(
            _without_placeholders(slot.output[:count]), slot.request.starts_inside
        )
        queue_length = len(self._queue_lists[slot.queue_id])
        self._forget(request_id)
        return {
            "history": history.tobytes(),
            "fired": fired,
            "fired_at": fired_at,
            "num_forced": max(0, min(count - fired_at, queue_length)) if fired_at >= 0 else 0,
            "num_think_tokens": thinking,
            "range": signal_range,
            "lost": slot.lost,
        }

    def _forget(self, request_id: str) -> None:
        slot = self._by_id.get(request_id)
        if slot is not None:
            self._release(slot)
            self._rows = {row: other for row, other in self._rows.items() if other is not slot}
            self._batch = None

    def kept(self) -> dict[str, int]:
        """How much is held: live requests, rows, slots."""
        return {"requests": len(self._by_id), "rows": len(self._rows), "slots": len(self._state)}


def _range_of(before: Sequence[float], history: np.ndarray) -> list[float]:
    """The range after the sampled tokens of a history [T, 3], from the range before."""
    sampled = history[~np.isnan(history[:, _M])]
    e, c = sampled[:, _ENTROPY], sampled[:, _CONFIDENCE]
    e_min, e_max, c_min, c_max = before
    return [
        float(e.min(initial=e_min)),
        float(e.max(initial=e_max)),
        float(c.min(initial=c_min)),
        float(c.max(initial=c_max)),
    ]


def _without_placeholders(output: list[int]) -> list[int]:
    """The tokens that are known: async scheduling ends a list with -1 for tokens that are still being sampled."""
    length = len(output)
    while length and output[length - 1] < 0:
        length -= 1
    return output if length == len(output) else output[:length]


class WorkerExtension:
    """Mixed into vLLM's worker (`worker_extension_cls`); called by `collective_rpc`."""

    model_runner: Any

    def t2po_take(self, finished: list[tuple[str, int]], dropped: list[str]) -> list[dict[str, Any] | None]:
        return self._tti_processor().take([(name, count) for name, count in finished], dropped)

    def t2po_kept(self) -> dict[str, int]:
        return self._tti_processor().kept()

    def _tti_processor(self) -> TTIProcessor:
        for processor in self.model_runner.input_batch.logitsprocs.all:
            if isinstance(processor, TTIProcessor):
                return processor
        raise RuntimeError("this vLLM worker runs no TTIProcessor; pass it in logits_processors")
