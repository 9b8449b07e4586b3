"""`actors.uncertainty` for an engine on a CPU: the same decisions, row by row, compiled by numba.

Owns: `step_rows`. Called by `actors.tti_slots`. Must not know: what `actors.uncertainty` must not know either.

On a CPU every torch call costs 3 µs whatever its size and a step needs some sixty of them; as one loop over the rows it
is a hundredth of that. The formulas, and what they leave open, are documented there; the tests hold both against the
same oracle.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from actors.uncertainty import (
    DEGENERATE_SPAN,
    DEGENERATE_VALUE,
    FIRED_CAP,
    FIRED_UNCERTAINTY,
    NO_TOKEN,
    PEAK_TOLERANCE,
    PHI_FLOOR,
    RELEASE_ALPHA,
    RELEASE_RUN,
    RELEASE_TOLERANCE,
    Column,
    Knob,
)

# numba takes plain integers as constants; the order is that of the enumerations.
(
    _E_MIN, _E_MAX, _C_MIN, _C_MAX, _MACHINE, _THINK_TOKENS, _LAST_M, _NUM_DELTAS, _PEAK_M, _PEAK_AT, _FIRED, _FIRED_AT,
    _PHI_SUM, _NUM_MEASURED, _NUM_TOKENS, _LOST,
) = map(int, Column)  # fmt: skip
_ALPHA, _EPSILON, _MIN_TOKENS, _WINDOW, _THINK_CAP, _ENABLED, _MAX_TOKENS, _QUEUE_ID, _RELEASE = map(int, Knob)
_NAMED = len(Column)


@numba.njit(cache=True, nogil=True)
def _level(value: float, low: float, high: float) -> float:
    return DEGENERATE_VALUE if high - low < DEGENERATE_SPAN else (value - low) / (high - low)


@numba.njit(cache=True, nogil=True)
def step_rows(
    state: Any, history: Any, knobs: Any, indices: Any, entropy: Any, confidence: Any, log_max: Any, token: Any,
    position: Any, next_state: Any, first_inside: int, done: int, queue_tokens: Any, queue_lengths: Any,
) -> np.ndarray:  # fmt: skip
    """One row for each slot of `indices`: `actors.tti_slots.SlotTable.step`. Returns the tokens to force."""
    log_vocabulary = math.log(next_state.shape[1])
    force = np.full(len(indices), NO_TOKEN, np.int64)
    for row in range(len(indices)):
        slot, at = indices[row], position[row]
        old, new, knob = state[slot, 0], state[slot, 1], knobs[slot]
        if new[_NUM_TOKENS] == at:  # the reply has grown: what was pending is committed
            old[:] = new
            machine = int(old[_MACHINE])
            old[_THINK_TOKENS] += first_inside <= machine < done
            old[_MACHINE] = next_state[machine, token[row]]
        if old[_NUM_TOKENS] != at:
            old[_LOST] = 1
        new[:] = old
        new[_NUM_TOKENS] = at + 1

        # M, under ranges that take this token in
        h, c = entropy[row], confidence[row]
        valid = math.isfinite(h) and math.isfinite(c)
        release = knob[_RELEASE] > 0
        m = math.nan
        if valid:
            new[_E_MIN], new[_E_MAX] = min(old[_E_MIN], h), max(old[_E_MAX], h)
            new[_C_MIN], new[_C_MAX] = min(old[_C_MIN], c), max(old[_C_MAX], c)
            if release:
                sure = 1 - h / log_vocabulary if log_vocabulary > 0 else 1.0
                m = RELEASE_ALPHA * log_max[row] + (1 - RELEASE_ALPHA) * sure
            else:
                unsure = _level(h, new[_E_MIN], new[_E_MAX])
                sure = _level(c, new[_C_MIN], new[_C_MAX])
                m = knob[_ALPHA] * unsure + (1 - knob[_ALPHA]) * (1 - sure)

        # the window behind the peak
        machine, think_tokens = int(old[_MACHINE]), old[_THINK_TOKENS]
        inside = first_inside <= machine < done
        delta = abs(m - old[_LAST_M])
        has_delta = inside and delta >= 0 and not (release and delta > RELEASE_TOLERANCE)
        num_deltas = old[_NUM_DELTAS] + 1 if has_delta else 0.0
        for place in range(_NAMED, len(new) - 1):
            new[place] = old[place + 1]
        new[len(new) - 1] = delta if has_delta else 0.0
        if inside and m >= old[_PEAK_M] - PEAK_TOLERANCE:
            new[_PEAK_AT] = think_tokens
            new[_PEAK_M] = max(m, old[_PEAK_M])
        window = int(knob[_WINDOW])
        if release:
            saturated = num_deltas >= RELEASE_RUN and knob[_EPSILON] >= 0
        else:
            total = 0.0
            for place in range(len(new) - window - 1, len(new)):
                total += new[place]
            saturated = (
                num_deltas > window and total / (window + 1) < knob[_EPSILON] and think_tokens - window > new[_PEAK_AT]
            )
        # in the middle of a closing marker the automaton is further than at the thought's own state
        saturated = saturated and machine == first_inside and think_tokens >= knob[_MIN_TOKENS]

        # the decision, and the queue
        queue = int(knob[_QUEUE_ID])
        length = queue_lengths[queue]
        fired, fired_at = old[_FIRED], int(old[_FIRED_AT])
        may = knob[_ENABLED] > 0 and fired == 0 and old[_LOST] == 0 and at + length <= knob[_MAX_TOKENS]
        if may and inside and (saturated or think_tokens >= knob[_THINK_CAP]):
            fired, fired_at = float(FIRED_UNCERTAINTY if saturated else FIRED_CAP), at
        forced = fired_at >= 0 and at - fired_at < length
        if forced:
            force[row] = queue_tokens[queue, at - fired_at]

        # what stays: a forced token leaves no trace but the firing, one that was not measured ends the window
        if valid and not forced:
            new[_LAST_M] = m if inside else math.nan
            new[_NUM_DELTAS] = num_deltas
            new[_PHI_SUM] += m if release else math.log(max(m, PHI_FLOOR))
            new[_NUM_MEASURED] += 1
        else:
            new[:] = old
            new[_NUM_TOKENS] = at + 1
            if not forced:
                new[_LAST_M], new[_NUM_DELTAS] = math.nan, 0.0
        new[_FIRED], new[_FIRED_AT] = fired, fired_at
        place = min(at, history.shape[1] - 1)
        history[slot, place, 0], history[slot, place, 1] = h, c
        history[slot, place, 2] = math.nan if forced else m
    return force
