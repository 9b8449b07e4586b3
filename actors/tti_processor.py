"""TTI behind vLLM's V1 logits processor interface (the V1 runner: CPUs, and GPUs on request).

Owns: which request sits in which batch row, reading the replies' lists, forcing. Called by vLLM, through
`actors.tti_plugin`. Must not know: the formulas (`actors.uncertainty`), trajectories, Ray.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality

from actors.token_distribution import measure_distribution
from actors.tti_request import Request
from actors.tti_slots import Slot, SlotTable, known_tokens


@dataclass
class _Batch:
    """What only changes with the batch."""

    outputs: list[list[int]]
    rows: torch.Tensor
    all_rows: bool
    indices: torch.Tensor
    any_release: bool
    most: int
    top_j: torch.Tensor | None


class TTIProcessorV1:
    """Measures M of every t2po row and forces the queue where a thought is over."""

    def __init__(self, slots: SlotTable) -> None:
        self.slots = slots
        self._rows: dict[int, tuple[Slot, list[int]]] = {}  # batch row -> request, vLLM's own list of its reply
        self._batch: _Batch | None = None

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        if batch_update is None:
            return
        self._batch = None
        for row in [*batch_update.removed, *(row for row, *_ in batch_update.added)]:
            self._rows.pop(row, None)  # all that left, before it is asked whose slots are taken
        for row, params, _, output in batch_update.added:
            request = Request.of(params.extra_args)
            if request is not None:
                in_batch = [slot for slot, _ in self._rows.values()]
                length = len(known_tokens(output))
                self._rows[row] = (self.slots.admit(request, params, length, params.max_tokens, in_batch), output)
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
        if not batch.outputs:
            return logits
        # vLLM shows replies as Python lists only: these two lines are all that looks at them one by one.
        position = np.array([len(output) for output in batch.outputs])
        token = np.array([output[-1] if output else 0 for output in batch.outputs])
        if (token < 0).any():
            known = [known_tokens(output) for output in batch.outputs]
            position = np.array([len(output) for output in known])
            token = np.array([output[-1] if output else 0 for output in known])
        scores = logits if batch.all_rows else logits[batch.rows]
        distribution = measure_distribution(scores, batch.most, batch.top_j)
        place = self.slots.place
        force = self.slots.step(batch.indices, distribution, place(token), place(position), batch.any_release)
        forced = force >= 0
        if forced.any():
            rows = batch.rows[forced]
            logits[rows] = -torch.inf
            logits[rows, force[forced]] = 0.0
        return logits

    def _make_batch(self, num_rows: int) -> _Batch:
        placed = [(row, *held) for row, held in sorted(self._rows.items()) if row < num_rows]
        slots, table = [slot for _, slot, _ in placed], self.slots
        indices = np.array([slot.index for slot in slots], np.int64)
        top_j = table.top_j[indices]
        most = int(top_j.max(initial=1))
        return _Batch(
            outputs=[output for _, _, output in placed],
            rows=torch.tensor([row for row, _, _ in placed], dtype=torch.long, device=table.device),
            all_rows=len(placed) == num_rows,
            indices=table.place(indices),
            any_release=bool(table.release_signal[indices].any()),
            most=most,
            top_j=None if (top_j == most).all() else torch.from_numpy(top_j).to(table.device),
        )

    def take(
        self, finished: Sequence[tuple[str, Sequence[int]]], dropped: Sequence[str] = ()
    ) -> list[dict[str, Any] | None]:
        """Statistics of `finished` (id, tokens of the reply), in order, None if unknown; frees both."""
        taken = [self.slots.statistics(request_id, tokens) for request_id, tokens in finished]
        gone = [self.slots.release(name) for name in [*(name for name, _ in finished), *dropped]]
        self._rows = {row: held for row, held in self._rows.items() if held[0] not in gone}
        self._batch = None
        return taken

    def kept(self) -> dict[str, int]:
        """How much is held: live requests, slots, rows."""
        return self.slots.counts() | {"rows": len(self._rows)}
