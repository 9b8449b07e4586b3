"""The signal M, when a thought ends, and Φ (METHOD sections 2 to 4): one batched pass, pure functions.

Owns: M in its variants, the running range, the window of |ΔM|, the peak rule, the decision, which token is forced, Φ.
Called by `actors.tti_slots`, inside the engine. Must not know: vLLM, requests, batch rows, logits (their entropy and
confidence arrive from `actors.token_distribution`), tokenizers (a thought's markers arrive as the transition table
that `actors.think_markers` builds).

On torch tensors, for all rows at once and without waiting for the device. For an engine on a CPU
`actors.uncertainty_host` says the same row by row.

A request's state is one row of a float64 array, columns named by `Column` (whole numbers are exact there);
the window follows the named columns. One array means that moving, keeping or undoing a state is one call.

What the formulas leave open, decided once, here:
- Degenerate range: while maximum - minimum < 1e-6 (as at the first token of a trajectory) the normalised
  value is 0.5, the middle: nothing is known yet about high and low.
- ln p has a floor of -100 (below ln of the smallest normal number of fp32), so that C is finite under masks.
- A row whose logits hold NaN, +inf or nothing but -inf is *not measured* (NaN): it changes neither range,
  window nor Φ, and the window starts anew after it.
- t counts thinking tokens: those between the end of `<think>` and the end of `</think>`. Deciding before the
  t-th (from 0) is sampled, "t >= L_min" means that L_min of them exist. |ΔM| and the peak are the thought's own.
- The last token whose M comes within 1e-4 of the running maximum is the peak. Under a running range M is exactly 1
  whenever a new extreme is reached, so an equal M that comes later stands for more uncertainty, never for less; and
  a plateau at the maximum is a peak that is not behind, whatever the last digits say.
- The token whose distribution fires is the first forced one. Nothing fires unless the whole queue fits into
  the reply, and uncertainty does not fire in the middle of a `</think>` that the model is writing itself.

The signal `release` is that of the authors' public code (METHOD section 8.4) and brings its own constants:
M = 0.6 ln max p + 0.4 (1 - H / ln V), of which Φ is the arithmetic mean; a thought ends after 20 values of |ΔM| in a
row of at most 1e-4, wherever the peak is. α, N and ε are not used. High means sure, where the paper's M means unsure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from actors.token_distribution import Distribution

PHI_FLOOR = 1e-3
DEGENERATE_SPAN = 1e-6
DEGENERATE_VALUE = 0.5
PEAK_TOLERANCE = 1e-4

NOT_FIRED, FIRED_UNCERTAINTY, FIRED_CAP = 0, 1, 2
NO_TOKEN = -1

RELEASE_ALPHA = 0.6
RELEASE_TOLERANCE = 1e-4
RELEASE_RUN = 20


class Column(IntEnum):
    """Columns of a state row; column `len(Column) + i` is the i-th oldest |ΔM| of the window."""

    ENTROPY_MIN = 0
    ENTROPY_MAX = 1
    CONFIDENCE_MIN = 2
    CONFIDENCE_MAX = 3
    MACHINE = 4  # where the reply stands between the markers
    THINK_TOKENS = 5  # tokens sampled inside the thought
    LAST_M = 6  # of the last thinking token; NaN: none
    NUM_DELTAS = 7  # consecutive |ΔM| in the window
    PEAK_M = 8
    PEAK_AT = 9  # thinking token of the peak
    FIRED = 10  # NOT_FIRED, FIRED_UNCERTAINTY, FIRED_CAP
    FIRED_AT = 11  # index in the reply of the first forced token; -1: none
    PHI_SUM = 12  # over sampled tokens: sum of ln max(M, floor); of M itself for `release`
    NUM_MEASURED = 13
    NUM_TOKENS = 14  # tokens of the reply that the state has taken in; -1: the row holds no state
    LOST = 15  # 1: the reply went on without being shown, so it is neither measured nor forced any more


class Knob(IntEnum):
    """Columns of a request's settings, all as float64."""

    ALPHA = 0
    EPSILON = 1
    MIN_TOKENS = 2
    WINDOW = 3
    THINK_CAP = 4
    ENABLED = 5
    MAX_TOKENS = 6
    QUEUE_ID = 7
    RELEASE = 8


@dataclass(frozen=True)
class Settings:
    """Settings of each row, all [B] (weights [B, W]: 1/(N+1) at the row's window, 0 before it).

    `release`: rows with that signal; None when there are none, which saves its arithmetic.
    """

    alpha: Tensor
    epsilon: Tensor
    min_tokens: Tensor
    window: Tensor
    think_cap: Tensor
    enabled: Tensor  # bool
    max_tokens: Tensor
    queue_id: Tensor  # int64
    weights: Tensor
    release: Tensor | None  # bool


@dataclass(frozen=True)
class ThoughtTable:
    """The automaton over reply tokens: `next_state` [states, vocabulary]; inside is [first_inside, done)."""

    next_state: Tensor
    first_inside: int
    done: int


@dataclass(frozen=True)
class Queues:
    """The forced queues: `tokens` [Q, L] (padded), `lengths` [Q]."""

    tokens: Tensor
    lengths: Tensor


def initial_state(signal_range: Sequence[float], machine: int, window_size: int) -> np.ndarray:
    """The state row of a reply that begins, from the carried range and the automaton's state."""
    state = np.zeros(len(Column) + window_size)
    state[:4] = signal_range
    state[Column.MACHINE] = machine
    state[Column.LAST_M] = np.nan
    state[Column.PEAK_M] = -np.inf
    state[[Column.PEAK_AT, Column.FIRED_AT]] = -1
    return state


def normalised(value: Tensor, minimum: Tensor, maximum: Tensor) -> Tensor:
    """Min-max normalisation with the degenerate range defined at the top of this file."""
    span = maximum - minimum
    return torch.where(span < DEGENERATE_SPAN, DEGENERATE_VALUE, (value - minimum) / span)


def accept(state: Tensor, token: Tensor, known: Tensor, table: ThoughtTable) -> Tensor:
    """The states [B, columns] after the reply grew by `token` [B]; rows where `known` is False stay as they are."""
    machine = whole(state[:, Column.MACHINE])
    inside = (machine >= table.first_inside) & (machine < table.done)
    after = state + 0
    after[:, Column.MACHINE] = torch.where(known, table.next_state[machine, token], machine)
    after[:, Column.THINK_TOKENS] += inside & known
    return after


def measure(
    state: Tensor,
    settings: Settings,
    distribution: Distribution,
    position: Tensor,
    table: ThoughtTable,
    queues: Queues,
) -> tuple[Tensor, Tensor, Tensor]:
    """Takes the distributions of reply tokens `position` [B] into the states.

    Returns the states as they are if that token is sampled (or forced), M (NaN: not measured or forced), and
    the token to force (NO_TOKEN: sample).
    """
    entropy, confidence = distribution.entropy, distribution.confidence
    machine, think_tokens = state[:, Column.MACHINE], state[:, Column.THINK_TOKENS]
    fired, named = state[:, Column.FIRED], len(Column)
    after = state + 0

    valid = torch.isfinite(entropy) & torch.isfinite(confidence)
    # NaN propagates through minimum and maximum: rows that are not measured are put right at the end.
    e_min, e_max = torch.minimum(state[:, 0], entropy), torch.maximum(state[:, 1], entropy)
    c_min, c_max = torch.minimum(state[:, 2], confidence), torch.maximum(state[:, 3], confidence)
    uncertain, sure = normalised(entropy, e_min, e_max), normalised(confidence, c_min, c_max)
    m = torch.where(valid, settings.alpha * uncertain + (1 - settings.alpha) * (1 - sure), math.nan)

    if settings.release is not None:
        m = torch.where(settings.release, _release_m(distribution, table.next_state.shape[1]), m)
    inside = (machine >= table.first_inside) & (machine < table.done)
    delta = torch.abs(m - state[:, Column.LAST_M])
    has_delta = inside & (delta >= 0)  # NaN compares False
    if settings.release is not None:  # there the run of small values is counted, not a mean taken
        has_delta = has_delta & ~(settings.release & (delta > RELEASE_TOLERANCE))
    num_deltas = torch.where(has_delta, state[:, Column.NUM_DELTAS] + 1, 0.0)
    peak_m = state[:, Column.PEAK_M]
    at_peak = inside & (m >= peak_m - PEAK_TOLERANCE)
    peak_at = torch.where(at_peak, think_tokens, state[:, Column.PEAK_AT])
    after[:, Column.PEAK_M] = torch.where(at_peak & (m > peak_m), m, peak_m)
    after[:, named:-1] = state[:, named + 1 :]
    after[:, -1] = torch.where(has_delta, delta, 0.0)

    by_uncertainty, by_cap = decide(
        settings, inside, machine > table.first_inside, think_tokens, after[:, named:], num_deltas, peak_at
    )
    queue_length = queues.lengths[settings.queue_id]
    may = settings.enabled & (fired == NOT_FIRED) & (state[:, Column.LOST] == 0)
    may = may & (position + queue_length <= settings.max_tokens)
    by_uncertainty = by_uncertainty & may
    fires = by_uncertainty | (by_cap & may)
    fired = torch.where(fires, torch.where(by_uncertainty, float(FIRED_UNCERTAINTY), float(FIRED_CAP)), fired)
    fired_at = torch.where(fires, position, whole(state[:, Column.FIRED_AT]))

    step = position - fired_at
    forced = (fired_at >= 0) & (step < queue_length)
    token = torch.where(forced, queues.tokens[settings.queue_id, step * forced], NO_TOKEN)

    after[:, 0], after[:, 1], after[:, 2], after[:, 3] = e_min, e_max, c_min, c_max
    after[:, Column.LAST_M] = torch.where(inside, m, math.nan)
    after[:, Column.NUM_DELTAS] = num_deltas
    after[:, Column.PEAK_AT] = peak_at
    share = torch.log(m.clamp(min=PHI_FLOOR))
    after[:, Column.PHI_SUM] += share if settings.release is None else torch.where(settings.release, m, share)
    after[:, Column.NUM_MEASURED] += valid
    counts = valid & ~forced
    # A forced token was not sampled: its distribution leaves no trace but the firing itself. One that could not be
    # measured ends the window.
    after = torch.where(counts[:, None], after, state)
    broken = ~valid & ~forced
    after[:, Column.LAST_M] = torch.where(broken, math.nan, after[:, Column.LAST_M])
    after[:, Column.NUM_DELTAS] = torch.where(broken, 0.0, after[:, Column.NUM_DELTAS])
    m = torch.where(forced, math.nan, m)
    after[:, Column.FIRED] = fired
    after[:, Column.FIRED_AT] = fired_at
    return after, m, token


def decide(
    settings: Settings,
    inside: Tensor,
    mid_marker: Tensor,
    think_tokens: Tensor,
    window: Tensor,
    num_deltas: Tensor,
    peak_at: Tensor,
) -> tuple[Tensor, Tensor]:
    """Whether the thought ends here: (by saturated uncertainty, by the cap), METHOD section 3."""
    saturated = (window * settings.weights).sum(1) < settings.epsilon
    full = num_deltas > settings.window
    peak_behind = think_tokens - settings.window > peak_at
    old_enough = think_tokens >= settings.min_tokens
    by_uncertainty = saturated & full & peak_behind
    if settings.release is not None:
        by_uncertainty = torch.where(
            settings.release, (num_deltas >= RELEASE_RUN) & (settings.epsilon >= 0), by_uncertainty
        )
    by_uncertainty = by_uncertainty & inside & ~mid_marker & old_enough
    return by_uncertainty, inside & (think_tokens >= settings.think_cap)


def _release_m(distribution: Distribution, vocabulary: int) -> Tensor:
    sure = 1 - distribution.entropy / math.log(vocabulary) if vocabulary > 1 else 1.0
    return RELEASE_ALPHA * distribution.log_max + (1 - RELEASE_ALPHA) * sure


def phi(m: np.ndarray, release: bool = False) -> float:
    """Φ of a turn: the geometric mean of M over its sampled tokens; NaN entries are not sampled or not measured."""
    values = m[~np.isnan(m)].astype(np.float64)
    if not len(values):
        return float("nan")
    return float(values.mean() if release else np.exp(np.log(np.maximum(values, PHI_FLOOR)).mean()))


def whole(array: Tensor) -> Tensor:
    """Whole numbers, from float64 columns that hold them exactly."""
    return array.long()
