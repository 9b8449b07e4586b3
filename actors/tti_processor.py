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
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality

import actors.weight_transfer  # noqa: F401  registers the weight transfer engine in the worker process
from actors import uncertainty
from actors.think_markers import DEFAULT_QUEUE, MarkerError, Tokenizer, build_automaton, queue_tokens, token_pieces
from actors.uncertainty import Array, Column, Queues, Settings, ThoughtTable

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
    problem: str = ""  # why it is not measured


@dataclass
class _Batch:
    """What only changes with the batch."""

    slots: list[_Slot]
    outputs: list[list[int]]
    rows: torch.Tensor
    host_indices: np.ndarray  # slot indices, for the counters that stay on the host
    indices: Array
    settings: Settings
    top_j: int | torch.Tensor
    all_rows: bool


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
        self._on_host = device.type == "cpu"
        self._automaton = build_automaton(token_pieces(tokenizer, vocabulary))
        self._table = ThoughtTable(
            self._place(self._automaton.next_state), self._automaton.first_inside, self._automaton.done
        )
        self._queue_ids: dict[str, int] = {}
        self._queue_lists: list[list[int]] = []
        self._queues = Queues(self._place(np.zeros((0, 1), np.int64)), self._place(np.zeros(0, np.int64)))
        self._rows: dict[int, _Slot] = {}  # batch row -> request
        self._by_id: dict[str, _Slot] = {}
        self._free: list[int] = []
        self._window_size = 4
        self._history_length = 64
        # By slot: the two states [S, 2, columns], entropy, confidence and M of each token [S, T, 3], and on the host
        # the number of tokens in the committed state and whether the pending one holds the token after them.
        self._state = self._place(np.zeros((0, 2, len(Column) + self._window_size)))
        self._history = self._place(np.zeros((0, self._history_length, 3), np.float32))
        self._committed = np.zeros(0, np.int64)
        self._measured = np.zeros(0, np.bool_)
        self._batch: _Batch | None = None
        # Requests that left the batch and were never asked for (a client without `take`) may not pile up.
        self._max_slots = 8 * max_rows + 64
        self._grow_slots(max_rows)

    def _place(self, array: np.ndarray) -> Array:
        """An array as the core wants it: numpy on a CPU, a tensor on the device elsewhere."""
        return array if self._on_host else torch.from_numpy(array).to(self._device)

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
        length = len(_without_placeholders(output))
        if known is not None and length >= self._committed[known.index]:
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
        try:
            queue_id, problem = self._queue_id(request.queue), ""
        except MarkerError as error:  # one request's bad queue must not end the engine
            queue_id, problem = -1, str(error)
        if length:
            problem = problem or f"it came with {length} tokens that were not measured"
        slot = _Slot(self._free.pop(), request, output, limit, queue_id, problem)
        self._by_id[request.id] = slot
        start = self._automaton.first_inside if request.starts_inside else 0
        initial = uncertainty.initial_state(request.range or _EMPTY_RANGE, start, self._window_size)
        self._state[slot.index] = self._place(initial)
        self._committed[slot.index], self._measured[slot.index] = 0, False
        return slot

    def _queue_id(self, text: str) -> int:
        if text not in self._queue_ids:
            tokens_of_text = queue_tokens(self._tokenizer, text, self._automaton)
            self._queue_lists.append(tokens_of_text)
            self._queue_ids[text] = len(self._queue_lists) - 1
            tokens = np.zeros((len(self._queue_lists), max(map(len, self._queue_lists))), np.int64)
            for row, queue in zip(tokens, self._queue_lists, strict=True):
                row[: len(queue)] = queue
            lengths = np.array([len(queue) for queue in self._queue_lists])
            self._queues = Queues(self._place(tokens), self._place(lengths))
        return self._queue_ids[text]

    def _grow_slots(self, count: int) -> None:
        have, xp = len(self._state), np if self._on_host else torch
        state = self._place(np.zeros((count, *self._state.shape[1:])))
        history = self._place(np.full((count, *self._history.shape[1:]), np.nan, np.float32))
        self._state = xp.concatenate((self._state, state))
        self._history = xp.concatenate((self._history, history))
        self._committed = np.concatenate((self._committed, np.zeros(count, np.int64)))
        self._measured = np.concatenate((self._measured, np.zeros(count, np.bool_)))
        self._free.extend(range(have + count - 1, have - 1, -1))

    def _make_room(self, window_size: int, reply_length: int) -> None:
        """Widens the windows (new columns on the old end) and lengthens the histories to what a request needs."""
        xp = np if self._on_host else torch
        if window_size > self._window_size:
            blank = self._place(np.zeros((len(self._state), 2, window_size - self._window_size)))
            named = len(Column)
            self._state = xp.concatenate((self._state[:, :, :named], blank, self._state[:, :, named:]), 2)
            self._window_size = window_size
            self._batch = None
        if reply_length > self._history_length:
            length = max(reply_length, min(2 * self._history_length, self._max_length))
            blank = self._place(np.full((len(self._history), length - self._history_length, 3), np.nan, np.float32))
            self._history, self._history_length = xp.concatenate((self._history, blank), 1), length

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
        # vLLM shows outputs as Python lists only: these two lines are all that looks at them one by one.
        position = np.array([len(output) for output in batch.outputs])
        token = np.array([output[-1] if output else 0 for output in batch.outputs])
        if (token < 0).any():
            known = [_without_placeholders(output) for output in batch.outputs]
            position = np.array([len(output) for output in known])
            token = np.array([output[-1] if output else 0 for output in known])
        committed = self._committed[batch.host_indices]
        grown = self._measured[batch.host_indices] & (position == committed + 1)
        followed = grown | (position == committed)
        if not followed.all():
            for row in np.flatnonzero(~followed):
                slot = batch.slots[row]
                slot.problem = f"its output has {position[row]} tokens, {self._committed[slot.index]} were followed"
            self._batch = None
            return self.apply(logits)
        self._committed[batch.host_indices] = position
        self._measured[batch.host_indices] = True
        self._step(logits, batch, self._place(token), self._place(position), self._place(grown))
        return logits

    def _step(self, logits: torch.Tensor, batch: _Batch, token: Array, position: Array, grown: Array) -> None:
        """Measures one token of each row of the batch and forces where it must; all arrays [B]."""
        xp = np if self._on_host else torch
        both = self._state[batch.indices]
        all_grown = self._on_host and grown.all()
        committed = both[:, 1] if all_grown else xp.where(grown[:, None], both[:, 1], both[:, 0])
        committed = uncertainty.accept(committed, token, grown, self._table)
        raw = logits if batch.all_rows else logits[batch.rows]
        signals = uncertainty.entropy_and_confidence(raw, batch.top_j)
        entropy, confidence = (signal.numpy() for signal in signals) if self._on_host else signals
        pending, m, force = uncertainty.measure(
            committed, batch.settings, entropy, confidence, position, self._table, self._queues
        )
        both[:, 0], both[:, 1] = committed, pending
        self._state[batch.indices] = both
        for kind, values in ((_ENTROPY, entropy), (_CONFIDENCE, confidence), (_M, m)):
            self._history[batch.indices, position, kind] = values
        forced = force >= 0
        if forced.any():
            here = torch.as_tensor(forced)
            rows = batch.rows[here]
            logits[rows] = -torch.inf
            logits[rows, torch.as_tensor(force)[here]] = 0.0

    def _make_batch(self, num_rows: int) -> _Batch:
        placed = [(row, slot) for row, slot in sorted(self._rows.items()) if row < num_rows and not slot.problem]
        slots = [slot for _, slot in placed]
        asked = [slot.request for slot in slots]

        def floats(name: str) -> Array:
            return self._place(np.array([float(getattr(request, name)) for request in asked]))

        window = floats("window")
        age = self._place(np.arange(self._window_size - 1.0, -1, -1))
        settings = Settings(
            alpha=floats("alpha"),
            epsilon=floats("epsilon"),
            min_tokens=floats("min_tokens"),
            window=window,
            think_cap=floats("think_cap"),
            enabled=floats("tti") > 0,
            max_tokens=self._place(np.array([slot.max_tokens for slot in slots])),
            queue_id=self._place(np.array([slot.queue_id for slot in slots], np.int64)),
            weights=(age[None, :] <= window[:, None]) / (window[:, None] + 1),
        )
        top_js = {request.top_j for request in asked}
        indices = np.array([slot.index for slot in slots], np.int64)
        return _Batch(
            slots=slots,
            outputs=[slot.output for slot in slots],
            rows=torch.tensor([row for row, _ in placed], dtype=torch.long, device=self._device),
            host_indices=indices,
            indices=self._place(indices),
            settings=settings,
            top_j=top_js.pop() if len(top_js) == 1 else torch.tensor([r.top_j for r in asked], device=self._device),
            all_rows=len(placed) == num_rows,
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
        history = np.asarray(torch.as_tensor(self._history[slot.index, :count]).cpu())
        committed = int(self._committed[slot.index])
        pending = bool(self._measured[slot.index]) and count == committed + 1
        last = self._state[slot.index, int(pending)].tolist()
        fired_at = int(last[Column.FIRED_AT])
        signal_range = last[:4]
        if not slot.problem and not pending and count != committed:
            # Async scheduling measured tokens beyond the end of the reply: what they did to the range is undone.
            fired_at = fired_at if fired_at < count else -1
            signal_range = _range_of(slot.request.range or _EMPTY_RANGE, history)
        fired = FIRED_NAMES[int(last[Column.FIRED])] if fired_at >= 0 else ""
        thinking = self._automaton.thought_length(
            _without_placeholders(slot.output[:count]), slot.request.starts_inside
        )
        queue_length = len(self._queue_lists[slot.queue_id]) if slot.queue_id >= 0 else 0
        self._forget(request_id)
        return {
            "history": history.tobytes(),
            "fired": fired,
            "fired_at": fired_at,
            "num_forced": max(0, min(count - fired_at, queue_length)) if fired_at >= 0 else 0,
            "num_think_tokens": thinking,
            "range": signal_range,
            "problem": slot.problem,
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
