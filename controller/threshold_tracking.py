"""Thresholds that follow the policy: ε and η are moved after every step so that stated rates hold.

Owns: `TrackingSettings`, `moved`, `ThresholdTracker`. Called by `controller.train` and `controller.update`. Must not
know: where rates are measured, trajectories, files.

The rate under a threshold is a quantile of what the policy does, and the policy changes. The classic online estimate
of a quantile moves it by a small step against the sign of the error; here the step is on the logarithm of the
threshold and proportional to the error.

What a threshold cuts cannot be seen on thoughts that it has cut, and estimating it from those that it spared is biased
(`controller.tokens_saved`; docs/results.md has both numbers). So one trajectory in `probe_every` is played without ε,
as every trajectory would be without TTI, and the rate is what ε would have cut of its thoughts.

Deterministic whatever finishes first: the groups of step k are played under thresholds that follow from the steps
before k - max_staleness alone, which are all trained when the first group of step k gets its slot.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from pydantic import Field

from controller.calibration import cut_curve, thoughts_of
from envs.records import Thresholds, TrajectoryGroup
from envs.settings import Section


class TrackingSettings(Section):
    """Holding TTI's and TDS's rates while training by moving their thresholds (`t2po calibrate` finds them once)."""

    cut_share: float = Field(
        0.0, ge=0, lt=1, description="Share of thinking tokens that TTI shall cut; tti.epsilon is moved. 0: it stays."
    )
    resampled_share: float = Field(
        0.0, ge=0, lt=1, description="Share of turns that TDS shall sample again; tds.eta is moved. 0: it stays."
    )
    probe_every: int = Field(
        8, ge=2, description="One trajectory in so many is played without epsilon, to see what it would cut."
    )
    gain: float = Field(
        0.5, gt=0, le=2, description="Change of a threshold's logarithm a step when its rate is off by all of it."
    )
    epsilon_min: float = Field(1e-3, gt=0, description="Lowest tti.epsilon that tracking sets.")
    epsilon_max: float = Field(1.0, gt=0, description="Highest tti.epsilon that tracking sets.")
    eta_min: float = Field(1e-5, gt=0, description="Lowest tds.eta that tracking sets.")
    eta_max: float = Field(0.5, gt=0, le=1, description="Highest tds.eta that tracking sets.")

    @property
    def acts(self) -> bool:
        return self.cut_share > 0 or self.resampled_share > 0


def moved(threshold: float, target: float, measured: float, gain: float, low: float, high: float) -> float:
    """The threshold after one step: higher when the rate was too low. Unchanged without a target or a measurement."""
    if not target or not math.isfinite(measured):
        return threshold
    error = max(-1.0, min(1.0, (target - measured) / target))
    return max(low, min(high, threshold * math.exp(gain * error)))


class ThresholdTracker:
    """The thresholds of every step from the present one on, as far as they are known."""

    def __init__(self, settings: TrackingSettings, initial: Thresholds, max_staleness: int) -> None:
        self._settings = settings
        self._delay = max_staleness + 1
        self._of_step = dict.fromkeys(range(self._delay), initial)

    def of_step(self, step: int) -> Thresholds | None:
        """The thresholds of this step; None: nothing is tracked, the configuration holds."""
        return self._of_step[step] if self._settings.acts else None

    def of_trajectory(self, step: int, group_index: int, sibling: int) -> Thresholds | None:
        """What this trajectory is played under."""
        thresholds = self.of_step(step)
        if thresholds and self.is_probe(group_index, sibling):
            return replace(thresholds, epsilon=0.0)
        return thresholds

    def is_probe(self, group_index: int, sibling: int) -> bool:
        """Another sibling in each group, so that no place in a group is a probe more often than others."""
        settings = self._settings
        return settings.cut_share > 0 and (sibling + group_index) % settings.probe_every == 0

    def cut_share(self, step: int, groups: Iterable[TrajectoryGroup], window: int, min_tokens: int) -> float:
        """What the step's ε would have cut of its probes' thinking tokens; NaN without probes."""
        thoughts = thoughts_of(
            turn.accepted
            for group in groups
            for trajectory in group.trajectories
            if self.is_probe(group.index, trajectory.sibling)
            for turn in trajectory.turns
        )
        return cut_curve(thoughts, window, min_tokens).at(self._of_step[step].epsilon) if thoughts else math.nan

    def observe(self, step: int, cut_share: float, resampled_share: float) -> None:
        """The rates of the groups of `step`, once it is trained; fixes the thresholds of step + max_staleness + 1."""
        settings, last = self._settings, self._of_step[step + self._delay - 1]
        # What is measured now was caused by thresholds that are `delay` steps old: smaller steps do not overshoot.
        gain = settings.gain / self._delay
        self._of_step[step + self._delay] = Thresholds(
            epsilon=moved(
                last.epsilon, settings.cut_share, cut_share, gain, settings.epsilon_min, settings.epsilon_max
            ),
            eta=moved(last.eta, settings.resampled_share, resampled_share, gain, settings.eta_min, settings.eta_max),
        )
        self._of_step.pop(step, None)

    def state(self) -> tuple[tuple[int, float, float], ...]:
        """(step, ε, η) of every step that is known, for a checkpoint."""
        return tuple((step, one.epsilon, one.eta) for step, one in sorted(self._of_step.items()))

    def restore(self, state: Iterable[tuple[int, float, float]]) -> None:
        self._of_step = {step: Thresholds(epsilon=epsilon, eta=eta) for step, epsilon, eta in state}
