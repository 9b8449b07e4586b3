"""The memory of TTI inside an engine: one slot a live request, whatever its batch row, until its statistics are taken.

Owns: the arrays of states and histories, which slot is whose, the queues and the automaton of the engine's tokenizer,
the statistics of a finished request. Called by `actors.tti_processor`. Must not know: batch rows, vLLM, logits.

Each slot has two states: `committed`, before the token at hand, and `pending`, as if it were accepted.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from actors import uncertainty
from actors.think_markers import MarkerError, Tokenizer, build_automaton, queue_tokens, token_pieces
from actors.tti_request import EMPTY_RANGE, Request
from actors.uncertainty import Array, Column, Queues, ThoughtTable

FIRED_NAMES = ("", "uncertainty", "cap")
ENTROPY, CONFIDENCE, M = range(3)
_BEYOND = 4  # tokens that async scheduling may measure after a reply's end


@dataclass(eq=False)
class Slot:
    """One live request: its place in the arrays, what it asked for, and vLLM's own list of its output."""

    index: int
    request: Request
    output: list[int]
    max_tokens: int
    queue_id: int
    problem: str = ""  # why it is not measured


class SlotTable:
    """Slots by request id. `committed[slot]` counts the tokens of the committed state (on the host);
    `measured[slot]`: the pending state holds the token after them; `state` [S, 2, columns]; `history` [S, T, 3]."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        vocabulary: int,
        max_rows: int,
        max_length: int,
        device: torch.device,
        tensors: bool | None = None,
    ) -> None:
        """`tensors`: keep torch tensors (the default anywhere but on a CPU) rather than numpy arrays."""
        self.device = device
        self.on_host = device.type == "cpu" if tensors is None else not tensors
        self._tokenizer, self._max_length = tokenizer, max_length
        self._automaton = build_automaton(token_pieces(tokenizer, vocabulary))
        self.table = ThoughtTable(
            self.place(self._automaton.next_state), self._automaton.first_inside, self._automaton.done
        )
        self.queues = Queues(self.place(np.zeros((0, 1), np.int64)), self.place(np.zeros(0, np.int64)))
        self._queue_ids: dict[str, int] = {}
        self._queue_lists: list[list[int]] = []
        self._by_id: dict[str, Slot] = {}
        self._free: list[int] = []
        self.window_size, self._history_length = 4, 64
        self.state = self.place(np.zeros((0, 2, len(Column) + self.window_size)))
        self.history = self.place(np.zeros((0, self._history_length, 3)))
        self.committed = np.zeros(0, np.int64)
        self.measured = np.zeros(0, np.bool_)
        # Requests that left the batch and were never asked for may not pile up: a client need not take statistics.
        self._max_slots = 8 * max_rows + 64
        self._grow(max_rows)

    def place(self, array: np.ndarray) -> Array:
        """An array as the core wants it: numpy on a CPU, a tensor on the device elsewhere."""
        return array if self.on_host else torch.from_numpy(array).to(self.device)

    def admit(self, request: Request, output: list[int], max_tokens: int | None, in_batch: Collection[Slot]) -> Slot:
        """The slot of a request that enters the batch; one that comes back after preemption finds its own."""
        known = self._by_id.get(request.id)
        length = len(known_tokens(output))
        if known is not None and length >= self.committed[known.index]:
            known.output = output
            return known
        self.release(request.id)
        if not self._free and len(self._by_id) >= self._max_slots:
            self.release(next(name for name, slot in self._by_id.items() if slot not in in_batch))
        if not self._free:
            self._grow(len(self.state))
        limit = min(max_tokens or self._max_length, self._max_length)
        self._make_room(request.window + 1, limit + _BEYOND)
        try:
            queue_id, problem = self._queue_id(request.queue), ""
        except MarkerError as error:  # one request's bad queue must not end the engine
            queue_id, problem = -1, str(error)
        if length:
            problem = problem or f"it came with {length} tokens that were not measured"
        slot = Slot(self._free.pop(), request, output, limit, queue_id, problem)
        self._by_id[request.id] = slot
        start = self._automaton.first_inside if request.starts_inside else 0
        self.state[slot.index] = self.place(
            uncertainty.initial_state(request.range or EMPTY_RANGE, start, self.window_size)
        )
        self.committed[slot.index], self.measured[slot.index] = 0, False
        return slot

    def release(self, request_id: str) -> Slot | None:
        slot = self._by_id.pop(request_id, None)
        if slot is not None:
            self._free.append(slot.index)
        return slot

    def counts(self) -> dict[str, int]:
        return {"requests": len(self._by_id), "slots": len(self.state)}

    def statistics(self, request_id: str, count: int) -> dict[str, Any] | None:
        """What is known of a request whose reply has `count` tokens; None if nothing is."""
        slot = self._by_id.get(request_id)
        if slot is None:
            return None
        history = np.asarray(torch.as_tensor(self.history[slot.index, :count]).cpu())
        committed = int(self.committed[slot.index])
        pending = bool(self.measured[slot.index]) and count == committed + 1
        last = self.state[slot.index, int(pending or count > committed)].tolist()
        fired_at, signal_range = int(last[Column.FIRED_AT]), last[:4]
        measured = last[Column.NUM_MEASURED]
        phi = math.exp(last[Column.LOG_SUM] / measured) if measured else math.nan
        if not slot.problem and not pending and count != committed:
            # Async scheduling measured tokens beyond the end of the reply: what they did to range and Φ is undone.
            fired_at = fired_at if fired_at < count else -1
            signal_range = _range_after(slot.request.range or EMPTY_RANGE, history)
            phi = uncertainty.phi(history[:, M])
        queue_length = len(self._queue_lists[slot.queue_id]) if slot.queue_id >= 0 else 0
        thinking = self._automaton.thought_length(known_tokens(slot.output[:count]), slot.request.starts_inside)
        return {
            "history": history.astype(np.float32).tobytes(),
            "fired": FIRED_NAMES[int(last[Column.FIRED])] if fired_at >= 0 else "",
            "fired_at": fired_at,
            "num_forced": max(0, min(count - fired_at, queue_length)) if fired_at >= 0 else 0,
            "num_think_tokens": thinking,
            "range": signal_range,
            "phi": math.nan if slot.problem else phi,
            "problem": slot.problem,
        }

    def _queue_id(self, text: str) -> int:
        if text not in self._queue_ids:
            self._queue_lists.append(queue_tokens(self._tokenizer, text, self._automaton))
            self._queue_ids[text] = len(self._queue_lists) - 1
            tokens = np.zeros((len(self._queue_lists), max(map(len, self._queue_lists))), np.int64)
            for row, queue in zip(tokens, self._queue_lists, strict=True):
                row[: len(queue)] = queue
            lengths = np.array([len(queue) for queue in self._queue_lists])
            self.queues = Queues(self.place(tokens), self.place(lengths))
        return self._queue_ids[text]

    def _grow(self, count: int) -> None:
        have, xp = len(self.state), np if self.on_host else torch
        self.state = xp.concatenate((self.state, self.place(np.zeros((count, *self.state.shape[1:])))))
        history = self.place(np.full((count, *self.history.shape[1:]), np.nan))
        self.history = xp.concatenate((self.history, history))
        self.committed = np.concatenate((self.committed, np.zeros(count, np.int64)))
        self.measured = np.concatenate((self.measured, np.zeros(count, np.bool_)))
        self._free.extend(range(have + count - 1, have - 1, -1))

    def _make_room(self, window_size: int, reply_length: int) -> None:
        """Widens the windows (new columns on the old end) and lengthens the histories to what a request needs."""
        xp = np if self.on_host else torch
        if window_size > self.window_size:
            blank = self.place(np.zeros((len(self.state), 2, window_size - self.window_size)))
            named = len(Column)
            self.state = xp.concatenate((self.state[:, :, :named], blank, self.state[:, :, named:]), 2)
            self.window_size = window_size
        if reply_length > self._history_length:
            length = max(reply_length, min(2 * self._history_length, self._max_length))
            blank = self.place(np.full((len(self.history), length - self._history_length, 3), np.nan))
            self.history, self._history_length = xp.concatenate((self.history, blank), 1), length


def known_tokens(output: list[int]) -> list[int]:
    """The tokens that are known: async scheduling ends a list with -1 for tokens that are still being sampled."""
    length = len(output)
    while length and output[length - 1] < 0:
        length -= 1
    return output if length == len(output) else output[:length]


def _range_after(before: Sequence[float], history: np.ndarray) -> list[float]:
    """The range after the sampled tokens of a history [T, 3], from the range before."""
    sampled = history[~np.isnan(history[:, M])]
    entropy, confidence = sampled[:, ENTROPY], sampled[:, CONFIDENCE]
    e_min, e_max, c_min, c_max = before
    return [
        float(entropy.min(initial=e_min)),
        float(entropy.max(initial=e_max)),
        float(confidence.min(initial=c_min)),
        float(confidence.max(initial=c_max)),
    ]
