"""What is done about a run's health, and how far.

Owns: `decide`, and what the actions change their settings to. Called by the training loop, which does it and keeps the
history. Must not know: how health came about, how an action is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from controller.collapse.finding import Level
from controller.collapse.observatory import Health
from controller.collapse.settings import Action, CollapseSettings

ORDER: tuple[Action, ...] = ("notify", "checkpoint", "raise_eta", "raise_kl", "rollback", "pause")
"""What is asked for is done in this order: first what tells and keeps, last what ends."""


@dataclass(frozen=True, slots=True)
class Taken:
    """An action that was done after `step`, for a state of `level` that began in step `since`."""

    step: int
    action: Action
    level: Level
    since: int


def asked_for(settings: CollapseSettings, level: Level) -> tuple[Action, ...]:
    """What the configuration asks for at a level."""
    return {Level.WARNING: settings.on_warning, Level.COLLAPSED: settings.on_collapse}.get(level, ())


def decide(settings: CollapseSettings, health: Health, history: Sequence[Taken]) -> list[Action]:
    """The actions to do now, in order: those of the level, each once for every time that the level is entered.

    A rollback beyond `max_rollbacks` is left out, and with a rollback nothing is paused: the run goes on from there.
    """
    if not settings.enabled or health.level == Level.HEALTHY:
        return []
    asked = asked_for(settings, health.level)
    rollbacks = [place for place, taken in enumerate(history) if taken.action == "rollback"]
    course = history[rollbacks[-1] + 1 :] if rollbacks else history  # what came before was taken back with its steps
    done = {taken.action for taken in course if (taken.level, taken.since) == (health.level, health.since)}
    actions = [action for action in ORDER if action in asked and action not in done]
    if "rollback" in actions:
        if len(rollbacks) >= settings.max_rollbacks:
            actions.remove("rollback")
        elif "pause" in actions:
            actions.remove("pause")
    return actions


def lowered_lr(settings: CollapseSettings, lr: float, num_rollbacks: int) -> float:
    """The learning rate after so many rollbacks in all, from the configured one."""
    return lr * settings.rollback_lr_factor**num_rollbacks


def raised_eta(settings: CollapseSettings, eta: float) -> float:
    """η after raise_eta; one that is above `eta_max` already stays."""
    return max(eta, min(eta * settings.eta_factor, settings.eta_max))


def raised_kl_coef(settings: CollapseSettings, kl_coef: float) -> float:
    """The KL coefficient after raise_kl; one that is above `kl_coef_max` already stays."""
    return max(kl_coef, min(kl_coef + settings.kl_coef_step, settings.kl_coef_max))
