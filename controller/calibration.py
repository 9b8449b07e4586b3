"""Thresholds from target rates: what ε and η would have done to thoughts and turns that were observed.

Owns: the pure arithmetic of calibration. Called by `controller.calibrate` (measure once) and by
`controller.threshold_tracking` (hold the rates while training). Must not know: files, engines, the clock.

The paper tunes ε, η, N and L_min by hand. The two rates that a person can state instead are the share of thinking
tokens that TTI cuts and the share of turns that TDS samples again. Both grow with their threshold, so each is met by
the quantile of something that can be observed without intervening.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from envs.records import Candidate, Turn

PEAK_TOLERANCE = 1e-4
"""That of `actors.uncertainty`, whose import would bring torch (a test compares them)."""

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Thought:
    """M of a thought's tokens and of the token after it (if that was sampled), and how many tokens it has.

    `m` [length or length + 1]; NaN where M was not measured.
    """

    m: Float64
    length: int


def thoughts_of(candidates: Iterable[Candidate]) -> list[Thought]:
    """The thoughts that a reply holds; those without a token are left out."""
    thoughts = []
    for candidate in candidates:
        first, length = candidate.think_at, candidate.num_think_tokens
        if first >= 0 and length > 0:
            m = candidate.uncertainty[first : first + length + 1].astype(np.float64)
            ends_forced = first + length < len(candidate.forced) and bool(candidate.forced[first + length])
            thoughts.append(Thought(m=m[:length] if ends_forced else m, length=length))
    return thoughts


def window_means(thought: Thought, window: int, min_tokens: int) -> Float64:
    """The mean of the last N+1 |ΔM| where TTI may fire by it (METHOD section 3), infinite elsewhere; [len(m)].

    As in `actors.uncertainty`: a window is full after N+1 differences without a gap, must lie behind the peak, and
    L_min tokens must exist.
    """
    means = np.full(len(thought.m), np.inf)
    peak, peak_at = -np.inf, -1
    deltas: list[float] = []
    for at, m in enumerate(thought.m):
        if np.isnan(m):
            deltas = []
            continue
        if at and not np.isnan(thought.m[at - 1]):
            deltas.append(abs(m - thought.m[at - 1]))
        if m >= peak - PEAK_TOLERANCE:
            peak, peak_at = max(peak, m), at
        if len(deltas) > window and at - window > peak_at and at >= min_tokens:
            means[at] = float(np.mean(deltas[-(window + 1) :]))
    return means


@dataclass(frozen=True, slots=True, kw_only=True)
class CutCurve:
    """The share of thinking tokens that a threshold ε would have cut; `share[i]` for ε just above `epsilon[i]`."""

    epsilon: Float64
    share: Float64

    def at(self, epsilon: float) -> float:
        below = int(np.searchsorted(self.epsilon, epsilon, side="left"))
        return float(self.share[below - 1]) if below else 0.0

    @property
    def largest(self) -> float:
        """What the peak rule, N and L_min leave possible at all."""
        return float(self.share[-1]) if len(self.share) else 0.0


def cut_curve(thoughts: Sequence[Thought], window: int, min_tokens: int) -> CutCurve:
    """What each ε would have cut of thoughts that uncertainty did not end."""
    total = sum(thought.length for thought in thoughts)
    events: list[tuple[float, int]] = []  # (window mean, tokens more that are cut once ε is above it)
    for thought in thoughts:
        means = window_means(thought, window, min_tokens)
        cut, lowest = 0, np.inf
        records = []
        for at, mean in enumerate(means.tolist()):
            if mean < lowest:  # the thought ends at the first place whose mean is below ε
                lowest = mean
                records.append((mean, max(0, thought.length - at)))
        for mean, would_cut in reversed(records):
            events.append((mean, would_cut - cut))
            cut = would_cut
    events.sort()
    values = np.array([mean for mean, _ in events])
    return CutCurve(epsilon=values, share=np.cumsum([cut for _, cut in events]) / max(total, 1))


def epsilon_for(curve: CutCurve, target: float) -> float:
    """The ε whose share is nearest to `target`. ValueError when the rules leave less than that possible."""
    if not 0 < target < 1:
        raise ValueError(f"target share of thinking tokens cut = {target}: must be between 0 and 1")
    if curve.largest < target:
        raise ValueError(
            f"target share of thinking tokens cut = {target:.1%}: at most {curve.largest:.1%} can be cut, since a "
            "thought ends only behind its peak; lower the target, tti.window or tti.min_tokens"
        )
    index = int(np.searchsorted(curve.share, target))
    if index and target - curve.share[index - 1] < curve.share[index] - target:
        index -= 1
    return _just_above(curve.epsilon, index)


def gammas_of(turns: Iterable[Turn]) -> Float64:
    """Γ of turns of which nothing was sampled again; NaN where it was not measured (a trajectory's first turn)."""
    return np.array([turn.accepted.gamma for turn in turns])


def resampled_share(gammas: Float64, eta: float) -> float:
    """The share of turns whose first candidate is stalled at η; turns without a measurement never are."""
    return float((gammas < eta).mean()) if len(gammas) else 0.0


def eta_for(gammas: Float64, target: float) -> float:
    """The η at which `target` of the turns would be sampled again."""
    if not 0 < target < 1:
        raise ValueError(f"target share of turns sampled again = {target}: must be between 0 and 1")
    measured = np.sort(gammas[np.isfinite(gammas)])
    wanted = round(target * len(gammas))
    if wanted > len(measured) or not wanted:
        raise ValueError(
            f"target share of turns sampled again = {target:.1%}: {len(measured)} of {len(gammas)} turns have a Γ; "
            "choose another target or play more tasks"
        )
    return _just_above(measured, wanted - 1)


def _just_above(values: Float64, index: int) -> float:
    """A threshold between `values[index]` and the next one: below it lie the first index + 1."""
    here = float(values[index])
    later = values[index:][values[index:] > here]
    return (here + float(later[0])) / 2 if len(later) else float(np.nextafter(here, np.inf))
