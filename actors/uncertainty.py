"""The signal M, when a thought ends, and Φ (METHOD sections 2 to 4): one batched pass, pure functions.

Owns: entropy and top-j confidence of a batch of logits, the running range, M, the window of |ΔM|, the
peak rule, the decision, which token is forced, Φ. Called by `actors.tti_processor` (inside the engine)
and by `actors.inference` (Φ and the range of a finished reply). Must not know: vLLM, requests, batch rows,
tokenizers (a thought's markers arrive as the transition table that `actors.think_markers` builds).

A request's state is one row of a float64 tensor, columns named by `Column` (whole numbers are exact there);
the window follows the named columns. One tensor means that moving, keeping or undoing a state is one call.

What the formulas leave open, decided once, here:
- Degenerate range: while maximum - minimum < 1e-6 (as at the first token of a trajectory) the normalised
  value is 0.5, the middle: nothing is known yet about high and low.
- ln p has a floor of -100 (below ln of the smallest number of fp32), so that C is finite under masks.
- A row whose logits hold NaN, +inf or nothing but -inf is *not measured* (NaN): it changes neither range,
  window nor Φ, and the window starts anew after it.
- t counts thinking tokens: those between the end of `<think>` and the end of `</think>`. Deciding before the
  t-th (from 0) is sampled, "t >= L_min" means that L_min of them exist. |ΔM| and the peak are the thought's
  own; the first token of the peak counts when M stays at the maximum.
- The token whose distribution fires is the first forced one. Nothing fires unless the whole queue fits into
  the reply, and uncertainty does not fire in the middle of a `</think>` that the model is writing itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

LOG_P_FLOOR = -100.0
PHI_FLOOR = 1e-3
DEGENERATE_SPAN = 1e-6
DEGENERATE_VALUE = 0.5

NOT_FIRED, FIRED_UNCERTAINTY, FIRED_CAP = 0, 1, 2
NO_TOKEN = -1

_SHIFT_FLOOR = -104.0  # exp of it is 0 in fp32; keeps 0 * -inf out of the sums
_BLOCK_ELEMENTS = 200_000  # rows are taken in blocks that stay in a CPU core's second-level cache
_DIRECT_PARTITION = 4096  # vocabularies up to here are partitioned whole, larger ones block by block
_GROUP = 64


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
    LOG_SUM = 12  # sum of ln max(M, floor) over sampled tokens
    NUM_MEASURED = 13


@dataclass(frozen=True)
class Settings:
    """Settings of each row, all [B] (weights [B, W]: 1/(N+1) at the row's window, 0 before it)."""

    alpha: Tensor
    epsilon: Tensor
    min_tokens: Tensor
    window: Tensor
    think_cap: Tensor
    enabled: Tensor  # bool
    max_tokens: Tensor
    queue_id: Tensor  # int64
    weights: Tensor


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


def initial_state(ranges: Tensor, machine: Tensor, window_size: int) -> Tensor:
    """States [B, columns] of replies that begin, from the carried ranges [B, 4] and automaton states [B]."""
    state = torch.zeros(ranges.shape[0], len(Column) + window_size, dtype=torch.float64, device=ranges.device)
    state[:, :4] = ranges
    state[:, Column.MACHINE] = machine.double()
    state[:, Column.LAST_M] = torch.nan
    state[:, Column.PEAK_M] = -torch.inf
    state[:, Column.PEAK_AT] = -1
    state[:, Column.FIRED_AT] = -1
    return state


def entropy_and_confidence(logits: Tensor, top_j: int | Tensor) -> tuple[Tensor, Tensor]:
    """Entropy H and top-j confidence C of each row, nats, float64 [B]; NaN where a row cannot be measured.

    `top_j` is one number or one for each row; a vocabulary smaller than j is averaged whole.
    """
    rows, vocabulary = logits.shape
    block = max(1, _BLOCK_ELEMENTS // vocabulary) if logits.device.type == "cpu" else max(1, rows)
    largest_j = min(int(top_j if isinstance(top_j, int) else top_j.max()), vocabulary)
    totals, dots, tops = [], [], []
    for part in logits.split(block):
        scores = part.float()
        peak = scores.amax(1, keepdim=True)
        shifted = (scores - peak).clamp_(min=_SHIFT_FLOOR)
        tops.append(_largest(shifted, largest_j))
        weights = shifted.exp()
        totals.append(weights.sum(1))
        dots.append(weights.mul_(shifted).sum(1))
    total = torch.cat(totals).double()
    log_total = total.log()
    entropy = (log_total - torch.cat(dots).double() / total).clamp_(min=0)
    log_p = (torch.cat(tops).double() - log_total[:, None]).clamp_(min=LOG_P_FLOOR)
    if isinstance(top_j, int):
        return entropy, -log_p.mean(1)
    sums = log_p.sort(1, descending=True).values.cumsum(1)
    count = top_j.clamp(max=vocabulary)
    return entropy, -sums.gather(1, (count - 1)[:, None]).squeeze(1) / count


def _largest(scores: Tensor, count: int) -> Tensor:
    """The `count` largest values of each row, in no order.

    torch.topk is slow on a CPU. The largest values lie in the groups with the largest maxima, so a large
    vocabulary is first cut down to `count` groups; numpy's partition then selects within what is left.
    """
    if scores.device.type != "cpu":
        return scores.topk(count, dim=1, sorted=False).values
    vocabulary = scores.shape[1]
    groups = vocabulary // _GROUP
    if vocabulary > _DIRECT_PARTITION and groups > count:
        whole = scores[:, : groups * _GROUP].view(-1, groups, _GROUP)
        chosen = whole.amax(2).topk(count, dim=1, sorted=False).indices
        kept = whole.gather(1, chosen[:, :, None].expand(-1, -1, _GROUP)).flatten(1)
        scores = torch.cat((kept, scores[:, groups * _GROUP :]), 1)
    first = scores.shape[1] - count
    return torch.from_numpy(np.partition(scores.numpy(), first, axis=1)[:, first:])


def normalised(value: Tensor, minimum: Tensor, maximum: Tensor) -> Tensor:
    """Min-max normalisation with the degenerate range defined at the top of this file."""
    span = maximum - minimum
    return torch.where(span < DEGENERATE_SPAN, DEGENERATE_VALUE, (value - minimum) / span)


def accept(state: Tensor, token: Tensor, known: Tensor, table: ThoughtTable) -> Tensor:
    """The states [B, columns] after the reply grew by `token` [B]; rows where `known` is False stay as they are."""
    machine = state[:, Column.MACHINE].long()
    inside = (machine >= table.first_inside) & (machine < table.done)
    after = state.clone()
    after[:, Column.MACHINE] = torch.where(known, table.next_state[machine, token].long(), machine).double()
    after[:, Column.THINK_TOKENS] += inside & known
    return after


def measure(
    state: Tensor,
    settings: Settings,
    entropy: Tensor,
    confidence: Tensor,
    position: Tensor,
    table: ThoughtTable,
    queues: Queues,
) -> tuple[Tensor, Tensor, Tensor]:
    """Takes the distributions of reply tokens `position` [B] into the states.

    Returns the states as they are if that token is sampled (or forced), M (NaN: not measured or forced), and
    the token to force (NO_TOKEN: sample).
    """
    (e_min, e_max, c_min, c_max, machine, think_tokens, last_m, num_deltas, peak_m, peak_at, fired, fired_at,
     log_sum, num_measured) = state[:, : len(Column)].unbind(1)  # fmt: skip
    valid = torch.isfinite(entropy) & torch.isfinite(confidence)
    new_e_min = torch.where(valid, torch.minimum(e_min, entropy), e_min)
    new_e_max = torch.where(valid, torch.maximum(e_max, entropy), e_max)
    new_c_min = torch.where(valid, torch.minimum(c_min, confidence), c_min)
    new_c_max = torch.where(valid, torch.maximum(c_max, confidence), c_max)
    uncertain = normalised(entropy, new_e_min, new_e_max)
    sure = normalised(confidence, new_c_min, new_c_max)
    m = settings.alpha * uncertain + (1 - settings.alpha) * (1 - sure)
    m = torch.where(valid, m, torch.nan)

    inside = (machine >= table.first_inside) & (machine < table.done)
    delta = (m - last_m).abs()
    new_num_deltas = torch.where(delta.isnan() | ~inside, 0.0, num_deltas + 1)
    new_window = torch.cat((state[:, len(Column) + 1 :], delta.nan_to_num(0.0)[:, None]), 1)
    higher = inside & (m > peak_m)  # NaN compares False
    new_peak_m = torch.where(higher, m, peak_m)
    new_peak_at = torch.where(higher, think_tokens, peak_at)

    by_uncertainty, by_cap = decide(
        settings, inside, machine > table.first_inside, think_tokens, new_window, new_num_deltas, new_peak_at
    )
    queue_length = queues.lengths[settings.queue_id]
    may = settings.enabled & (fired == NOT_FIRED) & (position + queue_length <= settings.max_tokens)
    by_uncertainty &= may
    by_cap &= may & ~by_uncertainty
    new_fired = torch.where(by_uncertainty, float(FIRED_UNCERTAINTY), torch.where(by_cap, float(FIRED_CAP), fired))
    new_fired_at = torch.where(by_uncertainty | by_cap, position.double(), fired_at)

    step = position - new_fired_at
    forced = (new_fired != NOT_FIRED) & (step < queue_length)
    step_index = torch.where(forced, step, 0.0).long()
    token = torch.where(forced, queues.tokens[settings.queue_id, step_index], NO_TOKEN)

    counted = valid
    new_log_sum = torch.where(counted, log_sum + m.clamp(min=PHI_FLOOR).log(), log_sum)
    measured = torch.stack(
        (new_e_min, new_e_max, new_c_min, new_c_max, machine, think_tokens, torch.where(inside, m, torch.nan),
         new_num_deltas, new_peak_m, new_peak_at, new_fired, new_fired_at, new_log_sum, num_measured + counted),
        1,
    )  # fmt: skip
    after = torch.cat((measured, new_window), 1)
    # A forced token was not sampled: its distribution leaves no trace but the firing itself.
    unsampled = state.clone()
    unsampled[:, Column.FIRED] = new_fired
    unsampled[:, Column.FIRED_AT] = new_fired_at
    return torch.where(forced[:, None], unsampled, after), torch.where(forced, torch.nan, m), token


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
    by_uncertainty = inside & ~mid_marker & saturated & full & peak_behind & old_enough
    return by_uncertainty, inside & (think_tokens >= settings.think_cap)


def phi(m: np.ndarray) -> float:
    """Φ of a turn: the geometric mean of M over its sampled tokens; NaN entries are not sampled or not measured."""
    values = m[~np.isnan(m)].astype(np.float64)
    return float(np.exp(np.log(np.maximum(values, PHI_FLOOR)).mean())) if len(values) else float("nan")
