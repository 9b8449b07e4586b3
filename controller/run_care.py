"""The collapse observatory in a running training: fed after every step, and what it asks for is done or begun.

Owns: `RunCare`, the run's `events.jsonl` (changes of health, actions). Called by `controller.training_run`. Must not
know: how a collapse shows (`controller.collapse`), how a checkpoint is written, how a life of the run ends.

Saving, pausing and another life are the loop's business: `care` says which of them are due, after the step is written.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controller.collapse.decision import Taken, asked_for, decide, lowered_lr, raised_eta, raised_kl_coef
from controller.collapse.finding import Level
from controller.collapse.notify import Notifier
from controller.collapse.observatory import Health, Observatory
from controller.collapse.settings import Action
from controller.config import RunConfig
from controller.durable_files import JsonLines, read_json_lines

logger = logging.getLogger(__name__)

EVENTS = "events.jsonl"
STALLED = "stalled"
"""The detector that looks at the time since the last step."""
MARGIN = 3
"""So many steps before the last one in which all was well a rollback goes: an illness begins before it shows."""


@dataclass(frozen=True, slots=True)
class Care:
    """What the loop has to do now. `changes`: knobs of the next life, by dotted key; with `roll_back` it begins at a
    checkpoint of step `back_to` or earlier."""

    save: bool = False
    pause: bool = False
    roll_back: bool = False
    back_to: int = 0
    changes: dict[str, Any] = field(default_factory=dict)
    cause: str = ""


class RunCare:
    """Of one life of a run."""

    def __init__(
        self,
        config: RunConfig,
        base: RunConfig,
        run: Path,
        earlier: Iterable[tuple[int, Mapping[str, float]]],
        note: Callable[[str], None],
    ) -> None:
        """`base`: the configuration that the run was begun with, `config` the one of this life. `earlier`: the steps
        of the run that are behind. `note`: tells a person."""
        self._config = config
        self._base = base
        self._note = note
        self._observatory = Observatory(config.collapse, earlier)
        self._notifier = Notifier(config.collapse, run.name)
        self._events = JsonLines(run / EVENTS)
        self._stalled = Level.HEALTHY
        self._history = [
            Taken(int(row["step"]), row["action"], Level(row["level"]), int(row["since"]))
            for row in read_json_lines(run / EVENTS)
            if row["event"] == "action"
        ]

    @property
    def last_healthy_step(self) -> int:
        """What a rollback may go back to at the latest."""
        return max(0, self._observatory.last_healthy_step - MARGIN)

    def observe(self, step: int, values: Mapping[str, float]) -> dict[str, float]:
        """The step's metrics of health: the level, of each detector, and how often each action was done so far."""
        if not self._config.collapse.enabled:
            return {}
        before = self._observatory.health
        health = self._observatory.observe(step, values)
        if health.level != before.level:
            self._note(f"step {step}: {health}")
            self.write("health", step, level=int(health.level), text=str(health))
        done = Counter(taken.action for taken in self._history)
        counts = {f"actions_{action}": float(count) for action, count in done.items()}
        return {**health.metrics(), **counts, "webhook_failures": float(self._notifier.failures)}

    def while_waiting(self, waited_s: float) -> None:
        """While the next step is awaited, `waited_s` after the last one: a run that stands still is told of at once,
        and again when it counts as collapsed."""
        if not self._config.collapse.enabled:
            return
        health = self._observatory.waiting(waited_s)
        level = dict(health.detectors).get(STALLED, Level.HEALTHY)
        if level > self._stalled:
            self._note(f"after step {health.step}: {health.causes[0]}")
            self.write("health", health.step, level=int(level), text=health.causes[0])
            if "notify" in asked_for(self._config.collapse, level):
                self._notifier.begin(health)
            else:
                logger.warning("after step %d: %s", health.step, health.causes[0])
        self._stalled = level

    async def care(self) -> Care:
        """What is due for the present health. Every action is in `events.jsonl` before it is done."""
        health = self._observatory.health
        actions = decide(self._config.collapse, health, self._history)
        if not actions:
            return Care()
        for action in actions:
            self._history.append(Taken(health.step, action, health.level, health.since))
            self.write(
                "action", health.step, action=action, level=int(health.level), since=health.since,
                text=f"{action}: {health}",
            )  # fmt: skip
        if "notify" in actions:
            await self._notifier.tell(health, [action for action in actions if action != "notify"])
        if others := [action for action in actions if action != "notify"]:
            self._note(f"step {health.step}: {', '.join(others)}")
        return self._care(actions, health)

    def _care(self, actions: list[Action], health: Health) -> Care:
        settings, changes = self._config.collapse, {}
        if "raise_eta" in actions:
            changes["tds.eta"] = raised_eta(settings, self._config.tds.eta)
        if "raise_kl" in actions:
            changes["loss.kl_coef"] = raised_kl_coef(settings, self._config.loss.kl_coef)
        if "rollback" in actions:
            count = sum(taken.action == "rollback" for taken in self._history)
            changes["learner.lr"] = lowered_lr(settings, self._base.learner.lr, count)
        return Care(
            save="checkpoint" in actions,
            pause="pause" in actions,
            roll_back="rollback" in actions,
            back_to=self.last_healthy_step,
            changes=changes,
            cause=f"{', '.join(actions)} because of {health}",
        )

    def write(self, event: str, step: int, **fields: Any) -> None:
        """One line of `events.jsonl`, on the disk when it returns."""
        self._events.append({"event": event, "step": step, **fields, "time": round(time.time(), 3)}, sync=True)

    async def told(self) -> None:
        """Waits for the posts that are under way."""
        await self._notifier.close()

    def close(self) -> None:
        self._events.close()
