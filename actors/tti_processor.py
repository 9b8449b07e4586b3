"""TTI inside vLLM: the V1 logits processor, and the worker extension that hands its statistics out.

Owns: which request sits in which batch row, when a token counts, forcing. vLLM loads both classes in its worker
process; `actors.inference` names them. Must not know: the formulas (`actors.uncertainty`), trajectories, Ray.

A request takes part by `SamplingParams.extra_args["t2po"]` (`actors.tti_request`); others are untouched.

How a token is counted: vLLM shows rows whose token it later throws away (chunked prefill, preemption, async
scheduling). When a request's output has grown its pending state is committed; when not, the row is measured again
from the committed one. Model Runner V2 has another interface and is not supported yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality

import actors.weight_transfer  # noqa: F401  registers the weight transfer engine in the worker process
from actors import uncertainty
from actors.tti_request import Request
from actors.tti_slots import CONFIDENCE, ENTROPY, M, Slot, SlotTable, known_tokens
from actors.uncertainty import Array, Settings

if TYPE_CHECKING:
    from vllm.config import VllmConfig


@dataclass
class _Batch:
    """What only changes with the batch. `host_indices`: the slots again, for the counters that stay on the host."""

    slots: list[Slot]
    outputs: list[list[int]]
    rows: torch.Tensor
    host_indices: np.ndarray
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

        model, max_rows = vllm_config.model_config, vllm_config.scheduler_config.max_num_seqs
        tokenizer = cached_tokenizer_from_config(model)
        self._start(SlotTable(tokenizer, model.get_vocab_size(), max_rows, model.max_model_len, device))

    @classmethod
    def over(cls, slots: SlotTable) -> TTIProcessor:
        """A processor without an engine (tests, cost measurements)."""
        processor = cls.__new__(cls)
        processor._start(slots)
        return processor

    def _start(self, slots: SlotTable) -> None:
        self._slots = slots
        self._rows: dict[int, Slot] = {}  # batch row -> request
        self._batch: _Batch | None = None

    def is_argmax_invariant(self) -> bool:
        return False

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
                self._rows[row] = self._slots.admit(request, output, params.max_tokens, self._rows.values())
        for source, target, direction in batch_update.moved:
            moving, replaced = self._rows.pop(source, None), self._rows.pop(target, None)
            if moving is not None:
                self._rows[target] = moving
            if direction is MoveDirectionality.SWAP and replaced is not None:
                self._rows[source] = replaced

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
            known = [known_tokens(output) for output in batch.outputs]
            position = np.array([len(output) for output in known])
            token = np.array([output[-1] if output else 0 for output in known])
        slots, here = self._slots, batch.host_indices
        committed = slots.committed[here]
        grown = slots.measured[here] & (position == committed + 1)
        followed = grown | (position == committed)
        if not followed.all():
            for row in np.flatnonzero(~followed):
                problem = f"its output has {position[row]} tokens, {committed[row]} of them were followed"
                batch.slots[row].problem = problem
            self._batch = None
            return self.apply(logits)
        slots.committed[here] = position
        slots.measured[here] = True
        self._step(logits, batch, slots.place(token), slots.place(position), slots.place(grown))
        return logits

    def _step(self, logits: torch.Tensor, batch: _Batch, token: Array, position: Array, grown: Array) -> None:
        """Measures one token of each row of the batch and forces where it must; all arrays [B]."""
        slots = self._slots
        both = slots.state[batch.indices]
        if slots.on_host:
            committed = both[:, 1] if grown.all() else np.where(grown[:, None], both[:, 1], both[:, 0])
        else:
            committed = torch.where(grown[:, None], both[:, 1], both[:, 0])
        committed = uncertainty.accept(committed, token, grown, slots.table)
        raw = logits if batch.all_rows else logits[batch.rows]
        signals = uncertainty.entropy_and_confidence(raw, batch.top_j)
        entropy, confidence = (signal.numpy() for signal in signals) if slots.on_host else signals
        pending, m, force = uncertainty.measure(
            committed, batch.settings, entropy, confidence, position, slots.table, slots.queues
        )
        both[:, 0], both[:, 1] = committed, pending
        slots.state[batch.indices] = both
        for kind, values in ((ENTROPY, entropy), (CONFIDENCE, confidence), (M, m)):
            slots.history[batch.indices, position, kind] = values
        forced = force >= 0
        if forced.any():
            here = torch.as_tensor(forced)
            rows = batch.rows[here]
            logits[rows] = -torch.inf
            logits[rows, torch.as_tensor(force)[here]] = 0.0

    def _make_batch(self, num_rows: int) -> _Batch:
        placed = [(row, slot) for row, slot in sorted(self._rows.items()) if row < num_rows and not slot.problem]
        slots, table = [slot for _, slot in placed], self._slots
        asked = [slot.request for slot in slots]

        def floats(name: str) -> Array:
            return table.place(np.array([float(getattr(request, name)) for request in asked]))

        window = floats("window")
        age = table.place(np.arange(table.window_size - 1.0, -1, -1))
        settings = Settings(
            alpha=floats("alpha"),
            epsilon=floats("epsilon"),
            min_tokens=floats("min_tokens"),
            window=window,
            think_cap=floats("think_cap"),
            enabled=floats("tti") > 0,
            max_tokens=table.place(np.array([slot.max_tokens for slot in slots])),
            queue_id=table.place(np.array([slot.queue_id for slot in slots], np.int64)),
            weights=(age[None, :] <= window[:, None]) / (window[:, None] + 1),
        )
        top_js = {request.top_j for request in asked}
        indices = np.array([slot.index for slot in slots], np.int64)
        return _Batch(
            slots=slots,
            outputs=[slot.output for slot in slots],
            rows=torch.tensor([row for row, _ in placed], dtype=torch.long, device=table.device),
            host_indices=indices,
            indices=table.place(indices),
            settings=settings,
            top_j=top_js.pop() if len(top_js) == 1 else torch.tensor([r.top_j for r in asked], device=table.device),
            all_rows=len(placed) == num_rows,
        )

    def take(self, finished: Sequence[tuple[str, int]], dropped: Sequence[str] = ()) -> list[dict[str, Any] | None]:
        """Statistics of `finished` (id, number of tokens in the reply), in order, None if unknown; frees both."""
        taken = [self._slots.statistics(request_id, count) for request_id, count in finished]
        gone = [self._slots.release(name) for name in [*(name for name, _ in finished), *dropped]]
        self._rows = {row: slot for row, slot in self._rows.items() if slot not in gone}
        self._batch = None
        return taken

    def kept(self) -> dict[str, int]:
        """How much is held: live requests, slots, rows."""
        return self._slots.counts() | {"rows": len(self._rows)}


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
