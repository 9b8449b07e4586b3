"""The observatory of a run: fed with each step's metrics, says how the run is and why.

Owns: `Observatory`, `Health`, the series so far. Called by the training loop, `t2po health` and the bench. Must
not know: Ray, files, the clock, what is done about a state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from controller.collapse.baseline import Series, Values
from controller.collapse.detection import INPUTS, detect
from controller.collapse.finding import DETECTORS, Finding, Level
from controller.collapse.outcome_detectors import stalled
from controller.collapse.settings import CollapseSettings
from controller.collapse.state import State, Watch, advance


@dataclass(frozen=True, slots=True)
class Health:
    """How a run is after `step`. `since`: the step in which it came to `level` (0: it was never otherwise). `causes`:
    of each detector that is not healthy, worst first. `detectors`: the level of each."""

    step: int = 0
    level: Level = Level.HEALTHY
    since: int = 0
    causes: tuple[str, ...] = ()
    detectors: tuple[tuple[str, Level], ...] = tuple((name, Level.HEALTHY) for name in DETECTORS)

    def metrics(self) -> dict[str, float]:
        """`health` and `alarms_<detector>`: 0, 1 or 2."""
        return {"health": float(self.level), **{f"alarms_{name}": float(level) for name, level in self.detectors}}

    def __str__(self) -> str:
        return f"{self.level}: {'; '.join(self.causes)}" if self.causes else str(self.level)


class Observatory:
    """`observe` each step in order, once. The same steps give the same healths, however they are split between
    `earlier` and `observe`: after a resume or a rollback, make a new one from the steps that are kept."""

    def __init__(self, settings: CollapseSettings, earlier: Iterable[tuple[int, Mapping[str, float]]] = ()) -> None:
        """`earlier`: (step, metrics) of the steps before, in order."""
        self._settings = settings
        self._count = 0
        self._columns: dict[str, Values] = {name: np.full(64, np.nan) for name in INPUTS}
        self._state = State()
        self._last_healthy = 0
        self.health = Health()
        for step, values in earlier:
            self.observe(step, values)

    @property
    def last_healthy_step(self) -> int:
        """The newest step of which no detector said anything, 0 before the first: a rollback goes to the newest
        checkpoint at or before it."""
        return self._last_healthy

    def observe(self, step: int, values: Mapping[str, float]) -> Health:
        """The metrics of one more step; what is missing, None or not finite counts as not measured. ValueError for a
        step that does not come after the last."""
        if step <= self._state.step:
            raise ValueError(f"step {step}: comes after step {self._state.step}, which was observed; make a new one")
        self._append(values)
        findings: tuple[Finding, ...] = ()
        if self._count > self._settings.warmup_steps:
            findings = detect(self._series(), self._settings)
        self._state = advance(self._state, step, findings, self._settings)
        self.health = _health(self._state)
        if self.health.level == Level.HEALTHY and not any(finding.level for finding in findings):
            self._last_healthy = step
        return self.health

    def waiting(self, waited_s: float) -> Health:
        """The health while the next step is awaited, `waited_s` seconds after the last one (without evaluations and
        what else is meant to take long). Changes nothing."""
        finding = stalled(self._series(), self._settings, waited_s=waited_s)
        if not finding.level:
            return self.health
        levels = dict(self.health.detectors) | {"stalled": finding.level}
        return replace(
            self.health,
            level=max(self.health.level, finding.level),
            causes=(finding.cause, *(cause for cause in self.health.causes)),
            detectors=tuple(levels.items()),
        )

    def _series(self) -> Series:
        return {name: values[: self._count] for name, values in self._columns.items()}

    def _append(self, values: Mapping[str, float]) -> None:
        for name, kept in self._columns.items():
            if self._count == len(kept):
                kept = self._columns[name] = np.concatenate([kept, np.full(len(kept), np.nan)])
            value = values.get(name)
            kept[self._count] = np.nan if value is None else float(value)
        self._count += 1


def _health(state: State) -> Health:
    watches = [(name, state.watches[name]) for name in DETECTORS if name in state.watches]
    ill = sorted((pair for pair in watches if pair[1].level), key=lambda pair: -pair[1].level)
    return Health(
        step=state.step,
        level=state.level,
        since=state.since,
        causes=tuple(watch.cause for _, watch in ill),
        detectors=tuple((name, state.watches.get(name, Watch()).level) for name in DETECTORS),
    )
