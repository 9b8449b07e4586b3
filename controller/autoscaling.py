"""Whether a run wants other numbers of environment actors and inference servers, from how it spent its last steps.

Owns: the section `autoscale`, `decide_size`, `Autoscaler`. Called by `controller.training_run` after each step. Must
not know: how actors join and leave (`controller.scaling`), the clock.

The learner is what everything else is there for. While it waits for groups, the part that is busy all the time is what
it waits for: one more of that. While groups wait for it (they grow old), one inference server too many is at work: one
fewer. One change at a time, then a pause in which its effect can be seen.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence

from pydantic import Field, model_validator

from controller.run_size import Size
from envs.settings import Section


class AutoscaleSettings(Section):
    """Other numbers of actors while it runs, within bounds (docs/runs.md); off unless switched on."""

    enabled: bool = Field(False, description="Whether the run changes its numbers of actors by itself.")
    min_envs: int = Field(1, ge=1, description="Fewest environment actors.")
    max_envs: int = Field(8, ge=1, description="Most environment actors.")
    min_inference: int = Field(1, ge=1, description="Fewest inference servers.")
    max_inference: int = Field(8, ge=1, description="Most inference servers.")
    window: int = Field(5, ge=1, le=100, description="Steps whose mean is looked at.")
    cooldown_steps: int = Field(10, ge=0, description="Steps after a change in which nothing is changed.")
    wait_share: float = Field(
        0.2, gt=0, lt=1, description="Share of a step that the learner waits for groups, above which more is wanted."
    )
    busy_share: float = Field(
        0.8, gt=0, le=1, description="Share of a step that a part is busy, above which it is the one that is short."
    )
    idle_share: float = Field(
        0.05, ge=0, lt=1, description="Share of a step that the learner waits, below which groups may be too many."
    )

    @model_validator(mode="after")
    def _check(self) -> AutoscaleSettings:
        for part, low, high in (
            ("envs", self.min_envs, self.max_envs),
            ("inference", self.min_inference, self.max_inference),
        ):
            if low > high:
                raise ValueError(f"autoscale.min_{part} = {low}: must not be above autoscale.max_{part} = {high}")
        if self.idle_share >= self.wait_share:
            raise ValueError(f"autoscale.idle_share = {self.idle_share}: must be below wait_share = {self.wait_share}")
        return self


def decide_size(settings: AutoscaleSettings, steps: Sequence[Mapping[str, float]], groups_per_step: int) -> Size | None:
    """What to change after these steps (their metrics), None for nothing.

    wait: Σ wait_s / Σ step_s. age: mean groups_ready / groups_per_step, in steps: what the queue holds beyond need.
    """
    seconds = math.fsum(step["step_s"] for step in steps)
    if not steps or seconds <= 0:
        return None
    wait = math.fsum(step["wait_s"] for step in steps) / seconds
    age = _mean(steps, "groups_ready") / groups_per_step
    envs, inference = int(steps[-1]["env_actors"]), int(steps[-1]["inference_servers"])
    environments_busy, generation_busy = _mean(steps, "busy_environments"), _mean(steps, "busy_generation")
    if wait > settings.wait_share:
        if environments_busy >= settings.busy_share and environments_busy >= generation_busy:
            return Size(envs=envs + 1) if envs < settings.max_envs else None
        if generation_busy >= settings.busy_share:
            return Size(inference=inference + 1) if inference < settings.max_inference else None
        return None
    if wait < settings.idle_share and age >= 1.0 and inference > settings.min_inference:
        return Size(inference=inference - 1)
    if environments_busy < settings.idle_share and envs > settings.min_envs:
        return Size(envs=envs - 1)
    return None


def _mean(steps: Sequence[Mapping[str, float]], name: str) -> float:
    return math.fsum(step[name] for step in steps) / len(steps)


class Autoscaler:
    """Remembers the last steps and when something was changed. `observe` each step once."""

    def __init__(self, settings: AutoscaleSettings, groups_per_step: int) -> None:
        self._settings = settings
        self._groups_per_step = groups_per_step
        self._steps: deque[Mapping[str, float]] = deque(maxlen=settings.window)
        self._rest = 0

    def observe(self, values: Mapping[str, float]) -> Size | None:
        """What is to be changed now."""
        if not self._settings.enabled:
            return None
        self._steps.append(values)
        self._rest -= 1
        if self._rest > 0 or len(self._steps) < self._settings.window:
            return None
        size = decide_size(self._settings, list(self._steps), self._groups_per_step)
        if size is not None:
            self._steps.clear()  # they were spent with the numbers of before
            self._rest = self._settings.cooldown_steps
        return size
