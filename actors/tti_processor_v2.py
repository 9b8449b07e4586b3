"""TTI behind vLLM's Model Runner V2 interface (the default on GPUs).

Owns: which request sits in which of the runner's slots, reading the replies' tokens where the runner keeps them, on the
device. Called by vLLM, through `actors.tti_plugin`. Must not know: the formulas (`actors.uncertainty`), trajectories,
Ray.

Nothing here waits for the device: what the host must know of a row (whether it takes part, its j, its signal) it has
known since the request came.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from actors.token_distribution import measure_distribution
from actors.tti_request import Request
from actors.tti_slots import Slot, SlotTable


class TTIProcessorV2:
    """Measures M of every t2po row and forces the queue where a thought is over."""

    def __init__(self, slots: SlotTable, req_states: Any) -> None:
        """`req_states`: vLLM's `LogitsProcRequestState`, read only."""
        self.slots = slots
        self._states = req_states
        self._held: dict[int, Slot] = {}  # the runner's slot -> ours
        # The runner does not say when a request leaves. One that was not in the last step is not in the batch.
        self._in_batch: set[int] = set()
        self._slot_of = np.zeros(req_states.max_num_reqs, np.int64)  # 0: takes no part
        self._slot_of_device = torch.from_numpy(self._slot_of).to(slots.device, copy=True)
        self._stale = False

    def add_request(self, req_idx: int, params: Any) -> bool:
        self._held.pop(req_idx, None)
        self._slot_of[req_idx], self._stale = 0, True
        request = Request.of(params.extra_args)
        if request is None:
            return False
        length = int(self._states.prefill_len.np[req_idx] - self._states.prompt_len.np[req_idx])
        in_batch = [slot for held, slot in self._held.items() if held in self._in_batch]
        slot = self.slots.admit(request, params, length, params.max_tokens, in_batch)
        self._held[req_idx], self._slot_of[req_idx] = slot, slot.index
        self._in_batch.add(req_idx)
        return True

    def apply_staged_writes(self) -> None:
        """Called once a step, between the requests that are added and their rows."""
        self._in_batch = set()
        self._write_slots()

    def _write_slots(self) -> None:
        if self._stale:
            self._slot_of_device.copy_(torch.from_numpy(self._slot_of), non_blocking=True)
            self._stale = False

    def apply(self, logits: torch.Tensor, ctx: Any) -> torch.Tensor:
        mine = self._slot_of[ctx.idx_mapping_np]
        self._in_batch = set(ctx.idx_mapping_np.tolist())
        if not mine.any():
            return logits
        self._write_slots()  # statistics may have been taken since the step began
        slots, states, request = self.slots, self._states, ctx.idx_mapping.long()
        rows, scores = None, logits
        if not mine.all():
            rows = torch.from_numpy(np.flatnonzero(mine)).to(slots.device, non_blocking=True)
            request, scores, mine = request[rows], logits[rows], mine[mine > 0]
        top_j = slots.top_j[mine]
        most = int(top_j.max())
        own_j = None if (top_j == most).all() else torch.from_numpy(top_j).to(slots.device, non_blocking=True)
        indices = self._slot_of_device[request]
        length = states.total_len.gpu[request].long()
        force = slots.step(
            indices,
            measure_distribution(scores, most, own_j),
            states.all_token_ids.gpu[request, length - 1].long(),
            length - states.prompt_len.gpu[request].long(),
            bool(slots.release_signal[mine].any()),
        )
        if logits.device.type == "cuda":
            from actors.distribution_kernel import force_tokens

            force_tokens(logits, force, rows)
        else:
            here = torch.arange(len(logits)) if rows is None else rows
            forced = force >= 0
            logits[here[forced]] = -torch.inf
            logits[here[forced], force[forced]] = 0.0
        return logits

    def take(
        self, finished: Sequence[tuple[str, Sequence[int]]], dropped: Sequence[str] = ()
    ) -> list[dict[str, Any] | None]:
        """Statistics of `finished` (id, tokens of the reply), in order, None if unknown; frees both."""
        taken = [self.slots.statistics(request_id, tokens) for request_id, tokens in finished]
        gone = [self.slots.release(name) for name in [*(name for name, _ in finished), *dropped]]
        for req_idx in [req_idx for req_idx, slot in self._held.items() if slot in gone]:
            del self._held[req_idx]
            self._slot_of[req_idx], self._stale = 0, True
        return taken

    def kept(self) -> dict[str, int]:
        """How much is held: live requests, slots, rows."""
        return self.slots.counts() | {"rows": len(self._held)}
