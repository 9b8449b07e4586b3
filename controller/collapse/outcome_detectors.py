"""Detectors of what the policy achieves: success that falls, groups that teach nothing, a run that does not come on.

Owns: `success_drop`, `dead_groups`, `stalled`, and `Outcome`, by which the other detectors tell learning from
collapsing. Called by `controller.collapse.detection` and the other detectors. Must not know: states, actions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from controller.collapse.baseline import Series, before, column, median, moving_mean, now, spread
from controller.collapse.finding import Finding, Level
from controller.collapse.settings import CollapseSettings

MEAN_STEPS = 5
"""Steps of the moving mean of success: with 16 to 64 trajectories a step, one step's rate is off by 0.06 to 0.12."""

SURE, LIKELY = 3.0, 1.5
"""Standard errors: a loss of success that counts by itself, and one that counts beside another sign."""

CLUSTER_FACTOR = 2.0
"""Siblings of one task end alike: a step's rate is off by about twice what as many single tasks would be off by."""

SOLVED = 0.9
"""From this success on, groups that all end alike are what one wants."""

NEVER_STALLED_S = 120.0
"""Shorter waits than this are no stall, however fast the steps are: a checkpoint or a replacement takes as long."""

COLLAPSED_STALL = 3.0
"""A stall this many times as long as the one that warns is one that nobody comes back from."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Success as mean of `MEAN_STEPS` steps: at present, at its best, at first, with the standard error of such a
    mean. NaN while there are fewer steps."""

    now: float
    best: float
    first: float
    error: float

    @property
    def learned(self) -> bool:
        """Whether success is above its first level by more than noise."""
        return self.now - self.first > SURE * self.error

    def drop(self, multiple: float) -> float:
        """Share of the best success that is lost; 0 for a loss below so many standard errors."""
        return 1.0 - self.now / self.best if self.best - self.now > multiple * self.error else 0.0


def outcome_of(series: Series, settings: CollapseSettings) -> Outcome:
    """What `success` tells. The noise of a step is what steps of the window differ by, and at least what so many
    trajectories at the best rate differ by (binomial, with `CLUSTER_FACTOR`)."""
    success = column(series, "success")
    means = moving_mean(success, MEAN_STEPS)
    if not len(means):
        return Outcome(math.nan, math.nan, math.nan, math.nan)
    best = min(max(float(means.max()), 0.0), 1.0)
    count = median(column(series, "trajectories")[-settings.window :])
    binomial = CLUSTER_FACTOR * math.sqrt(best * (1 - best) / count) if count > 0 else 0.0
    single = spread(before(success, MEAN_STEPS, settings.window))
    error = max(binomial, single if math.isfinite(single) else 0.0) / math.sqrt(MEAN_STEPS)
    return Outcome(float(means[-1]), best, float(means[0]), error)


def losing(reached: Outcome, settings: CollapseSettings) -> bool:
    """Whether half of what makes a warning of `success_drop` is lost: a strange signal does harm then."""
    return reached.drop(LIKELY) >= settings.success_drop / 2


def success_drop(series: Series, settings: CollapseSettings, reached: Outcome) -> Finding:
    """Success against its best: a warning at `success_drop`, a collapse at twice that (0.6: more than half)."""
    level = _level(reached.drop(SURE), settings.success_drop, 2 * settings.success_drop)
    cause = f"success fell from {reached.best:.0%} at its best to {reached.now:.0%} (means of {MEAN_STEPS} steps)"
    return Finding("success_drop", level, cause if level else "")


def dead_groups(series: Series, settings: CollapseSettings, reached: Outcome) -> Finding:
    """Groups whose trajectories all end alike teach nothing. 90% of them is a warning, and a collapse when next to
    nothing succeeds or success is being lost: then it cannot learn its way out. A solved task is neither."""
    dead = now(column(series, "groups_without_signal"), MEAN_STEPS)
    if not dead >= 0.9 or not reached.now < SOLVED:
        return Finding("dead_groups")
    lost = reached.now < 0.02 or losing(reached, settings)
    cause = f"{dead:.0%} of the groups teach nothing, at a success of {reached.now:.0%}"
    return Finding("dead_groups", Level.COLLAPSED if lost else Level.WARNING, cause)


def stalled(
    series: Series, settings: CollapseSettings, reached: Outcome | None = None, *, waited_s: float = 0.0
) -> Finding:
    """No step for long: `waited_s` seconds since the last one, or the time of the last step itself, against the usual
    time of a step. A step that is done was slow, which is at most a warning."""
    times = column(series, "step_s")
    usual = median(before(times, 1, settings.window))
    if not usual > 0:
        return Finding("stalled")
    limit = max(settings.stalled_factor * usual, NEVER_STALLED_S)
    if waited_s >= limit:
        level = Level.COLLAPSED if waited_s >= COLLAPSED_STALL * limit else Level.WARNING
        return Finding("stalled", level, f"no step for {waited_s:.0f} s; a step takes {usual:.0f} s")
    if np.isfinite(times[-1]) and times[-1] >= limit:
        return Finding("stalled", Level.WARNING, f"the last step took {times[-1]:.0f} s instead of {usual:.0f} s")
    return Finding("stalled")


def _level(value: float, warning: float, collapsed: float) -> Level:
    if value >= collapsed:
        return Level.COLLAPSED
    return Level.WARNING if value >= warning else Level.HEALTHY
