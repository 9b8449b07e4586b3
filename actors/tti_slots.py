"""The memory of TTI inside an engine: one slot a live request, whatever its batch row, until its statistics are taken.

Owns: the arrays of states, settings and histories, which slot is whose, the automaton of the engine's tokenizer, the
statistics of a finished request. Called by `actors.tti_processor` and `actors.tti_processor_v2`. Must
not know: batch rows, vLLM, logits.

Each slot has two states: before the token at hand ("committed"), and as if it were accepted ("pending"). An engine
shows rows whose token it later throws away (chunked prefill, preemption, async scheduling): when a reply has grown its
pending state is committed; when not, the row is measured again from the committed one.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from actors import uncertainty
from actors.forced_queues import ForcedQueues
from actors.think_markers import MarkerError, Tokenizer, build_automaton, token_pieces
from actors.token_distribution import Distribution
from actors.tti_request import EMPTY_RANGE, Request
from actors.uncertainty import Column, Knob, Settings, ThoughtTable

logger = logging.getLogger(__name__)

FIRED_NAMES = ("", "uncertainty", "cap")
ENTROPY, CONFIDENCE, M = range(3)
_BEYOND = 4  # tokens that async scheduling may measure after a reply's end


@dataclass(eq=False)
class Slot:
    """One live request: its place in the arrays and what it asked for."""

    index: int
    request: Request
    owner: object  # kept, so that its identity is not given to another
    queue_id: int
    problem: str = ""  # why it is not measured


class SlotTable:
    """Slots by request id. `state` [S, 2, columns]; `history` [S, T, 3]; `knobs` [S, knobs].

    On the host, so that a batch can be laid out without asking the device: `top_j` and `release_signal` [S].

    Slot 0 belongs to nobody: what is written there is never read.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        vocabulary: int,
        max_rows: int,
        max_length: int,
        device: torch.device,
        tensors: bool | None = None,
    ) -> None:
        """`tensors`: take steps on torch tensors (the default anywhere but on a CPU) rather than in compiled loops."""
        self.device = device
        self.on_host = device.type == "cpu" if tensors is None else not tensors
        self._max_length = max_length
        self._automaton = build_automaton(token_pieces(tokenizer, vocabulary))
        self.table = ThoughtTable(
            self.place(self._automaton.next_state), self._automaton.first_inside, self._automaton.done
        )
        self._queues = ForcedQueues(tokenizer, self._automaton, device)
        self._by_key: dict[object, Slot] = {}  # by id, by the owner's identity if it has none
        self._free: list[int] = []
        self.window_size, self._history_length = 4, 64
        self._age = self.place(np.arange(3.0, -1, -1)[None, :])
        self.state = self.place(np.zeros((0, 2, len(Column) + self.window_size)))
        self.history = self.place(np.zeros((0, self._history_length, 3)))
        self.knobs = self.place(np.zeros((0, len(Knob))))
        self.top_j, self.release_signal = np.zeros(0, np.int64), np.zeros(0, np.bool_)
        # Requests that left the batch and were never asked for may not pile up: a client need not take statistics.
        self._max_slots = 8 * max_rows + 64
        self._grow(max_rows + 1)
        self._free.remove(0)

    def place(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device, non_blocking=True)

    # ---- requests come and go ----

    def admit(
        self, request: Request, owner: object, num_tokens: int, max_tokens: int | None, in_batch: Collection[Slot]
    ) -> Slot:
        """The slot of a request that enters the batch with `num_tokens` of its reply.

        One that comes back after preemption finds its own slot, as it was: by its id, or, if it has none, by the
        identity of `owner`, its settings. Requests may share either (an id given twice; vLLM gives the replies of one
        request with n > 1 the same settings): a slot that is `in_batch` is another's, and the newcomer gets one that
        nobody can ask for.
        """
        key: object = request.id if request.id is not None else id(owner)
        known = self._by_key.get(key)
        if known is not None and known in in_batch:
            key = object()
        elif known is not None and num_tokens:
            return known
        else:
            self.release(key)
        if not self._free and len(self._by_key) >= self._max_slots:
            self.release(next(name for name, slot in self._by_key.items() if slot not in in_batch))
        if not self._free:
            self._grow(len(self.state))
        limit = min(max_tokens or self._max_length, self._max_length)
        self._make_room(request.window + 1, limit + _BEYOND)
        try:
            queue_id, problem = self._queues.number_of(request.queue), ""
        except MarkerError as error:  # one request's bad queue must not end the engine
            queue_id, problem = 0, str(error)
            logger.warning("t2po: %s", problem)
        if num_tokens:
            problem = problem or f"it came with {num_tokens} tokens that were not measured"
        slot = Slot(self._free.pop(), request, owner, queue_id, problem)
        self._by_key[key] = slot
        self._write(slot, limit)
        return slot

    def _write(self, slot: Slot, max_tokens: int) -> None:
        request, state = slot.request, np.zeros((2, len(Column) + self.window_size))
        start = self._automaton.first_inside if request.starts_inside else 0
        state[:] = uncertainty.initial_state(request.range or EMPTY_RANGE, start, self.window_size)
        state[1, Column.NUM_TOKENS] = -1
        state[:, Column.LOST] = slot.problem != ""
        knobs = np.zeros(len(Knob))
        knobs[Knob.ALPHA] = request.m_alpha
        knobs[Knob.EPSILON] = request.m_epsilon
        knobs[Knob.MIN_TOKENS] = request.min_tokens
        knobs[Knob.WINDOW] = request.window
        knobs[Knob.THINK_CAP] = request.think_cap
        knobs[Knob.ENABLED] = request.tti != "off"
        knobs[Knob.MAX_TOKENS] = max_tokens
        knobs[Knob.QUEUE_ID] = slot.queue_id
        knobs[Knob.RELEASE] = request.signal == "release"
        self.state[slot.index], self.knobs[slot.index] = self.place(state), self.place(knobs)
        self.top_j[slot.index] = request.top_j
        self.release_signal[slot.index] = request.signal == "release"

    def release(self, key: object) -> Slot | None:
        slot = self._by_key.pop(key, None)
        if slot is not None:
            self._free.append(slot.index)
        return slot

    def counts(self) -> dict[str, int]:
        return {"requests": len(self._by_key), "slots": len(self.state) - 1}

    # ---- one token of each row ----

    def step(
        self, indices: Tensor, distribution: Distribution, token: Tensor, position: Tensor, any_release: bool
    ) -> Tensor:
        """Takes in one row for each slot of `indices` [B]; returns the token to force, or NO_TOKEN.

        `position` [B]: tokens of the reply so far, `token` [B] the last of them; the distribution is the next one's.
        A row whose token was thrown away comes again with the same position and is measured again. `any_release`:
        whether a row has that signal.
        """
        if self.on_host:
            # Not before an engine's worker is up: vLLM 0.32 scans every loaded module and trips over llvmlite's.
            from actors.uncertainty_host import step_rows

            arrays = (self.state, self.history, self.knobs, indices, *distribution, token, position)
            table, queues = self.table, self._queues.arrays
            force = step_rows(
                *(array.numpy() for array in arrays), table.next_state.numpy(), table.first_inside, table.done,
                queues.tokens.numpy(), queues.lengths.numpy(),
            )  # fmt: skip
            return torch.from_numpy(force)
        both = self.state[indices]
        committed, pending = both[:, 0], both[:, 1]
        grown = pending[:, Column.NUM_TOKENS] == position
        committed = torch.where(grown[:, None], pending, committed)
        committed = uncertainty.accept(committed, token, grown, self.table)
        committed[:, Column.LOST] += committed[:, Column.NUM_TOKENS] != position
        settings = self._settings_of(indices, any_release)
        queues = self._queues.arrays
        after, m, force = uncertainty.measure(committed, settings, distribution, position, self.table, queues)
        after[:, Column.NUM_TOKENS] = position + 1
        both[:, 0], both[:, 1] = committed, after
        self.state[indices] = both
        at = position.clamp(max=self._history_length - 1)
        for kind, values in ((ENTROPY, distribution.entropy), (CONFIDENCE, distribution.confidence), (M, m)):
            self.history[indices, at, kind] = values
        return force

    def _settings_of(self, indices: Tensor, any_release: bool) -> Settings:
        """The settings of these slots, all [B]."""
        knobs = self.knobs[indices]
        window = knobs[:, Knob.WINDOW]
        return Settings(
            alpha=knobs[:, Knob.ALPHA],
            epsilon=knobs[:, Knob.EPSILON],
            min_tokens=knobs[:, Knob.MIN_TOKENS],
            window=window,
            think_cap=knobs[:, Knob.THINK_CAP],
            enabled=knobs[:, Knob.ENABLED] > 0,
            max_tokens=knobs[:, Knob.MAX_TOKENS],
            queue_id=uncertainty.whole(knobs[:, Knob.QUEUE_ID]),
            weights=(self._age <= window[:, None]) / (window[:, None] + 1),
            release=knobs[:, Knob.RELEASE] > 0 if any_release else None,
        )

    # ---- what is known of a reply ----

    def statistics(self, request_id: str, tokens: Sequence[int]) -> dict[str, Any] | None:
        """What is known of a request whose reply has these tokens; None if nothing is."""
        slot = self._by_key.get(request_id)
        if slot is None:
            return None
        count = len(tokens)
        both = self.state[slot.index].cpu().numpy()
        history = self.history[slot.index, :count].cpu().numpy()
        taken_in = both[:, Column.NUM_TOKENS].astype(int).tolist()
        last = both[taken_in.index(count) if count in taken_in else 1]
        fired_at, signal_range = int(last[Column.FIRED_AT]), last[:4].tolist()
        measured, release = last[Column.NUM_MEASURED], slot.request.signal == "release"
        mean = last[Column.PHI_SUM] / measured if measured else math.nan
        phi = mean if release else math.exp(mean)
        problem = slot.problem
        if not problem and (last[Column.LOST] or max(taken_in) < count):
            problem = f"its reply has {count} tokens, of which {max(0, min(taken_in))} were followed"
        elif not problem and count not in taken_in:
            # Async scheduling measured tokens beyond the end of the reply: what they did to range and Φ is undone.
            fired_at = fired_at if fired_at < count else -1
            signal_range = _range_after(slot.request.range or EMPTY_RANGE, history)
            phi = uncertainty.phi(history[:, M], release)
        think_at, num_think_tokens = self._automaton.thought_span(tokens, slot.request.starts_inside)
        queue_length = self._queues.length(slot.queue_id) if fired_at >= 0 else 0
        return {
            "history": history.astype(np.float32).tobytes(),
            "fired": FIRED_NAMES[int(last[Column.FIRED])] if fired_at >= 0 else "",
            "fired_at": fired_at,
            "num_forced": max(0, min(count - fired_at, queue_length)),
            "think_at": think_at,
            "num_think_tokens": num_think_tokens,
            "range": signal_range,
            "phi": math.nan if problem else phi,
            "problem": problem,
        }

    def _grow(self, count: int) -> None:
        have = len(self.state)
        self.state = torch.cat((self.state, self.place(np.zeros((count, *self.state.shape[1:])))))
        history = self.place(np.full((count, *self.history.shape[1:]), np.nan))
        self.history = torch.cat((self.history, history))
        self.knobs = torch.cat((self.knobs, self.place(np.zeros((count, len(Knob))))))
        self.top_j = np.concatenate((self.top_j, np.ones(count, np.int64)))
        self.release_signal = np.concatenate((self.release_signal, np.zeros(count, np.bool_)))
        self._free.extend(range(have + count - 1, have - 1, -1))

    def _make_room(self, window_size: int, reply_length: int) -> None:
        """Widens the windows (new columns on the old end) and lengthens the histories to what a request needs."""
        if window_size > self.window_size:
            blank = self.place(np.zeros((len(self.state), 2, window_size - self.window_size)))
            named = len(Column)
            self.state = torch.cat((self.state[:, :, :named], blank, self.state[:, :, named:]), 2)
            self.window_size = window_size
            self._age = self.place(np.arange(window_size - 1.0, -1, -1)[None, :])
        if reply_length > self._history_length:
            length = max(reply_length, min(2 * self._history_length, self._max_length))
            blank = self.place(np.full((len(self.history), length - self._history_length, 3), np.nan))
            self.history, self._history_length = torch.cat((self.history, blank), 1), length


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
