"""What is done about a state: each action once for a state, in order, within its bounds."""

from __future__ import annotations

import pytest

from controller.collapse.decision import Taken, asked_for, decide, lowered_lr, raised_eta, raised_kl_coef
from controller.collapse.finding import Level
from controller.collapse.observatory import Health
from controller.collapse.settings import Action, CollapseSettings


def health(level: Level, since: int = 7, step: int = 9) -> Health:
    return Health(step=step, level=level, since=since, causes=("because",))


def taken(*actions: Action, level: Level = Level.COLLAPSED, since: int = 7) -> list[Taken]:
    return [Taken(step=since, action=action, level=level, since=since) for action in actions]


def test_the_defaults_tell_and_save() -> None:
    chosen = CollapseSettings()
    assert decide(chosen, health(Level.HEALTHY), []) == []
    assert decide(chosen, health(Level.WARNING), []) == ["notify"]
    assert decide(chosen, health(Level.COLLAPSED), []) == ["notify", "checkpoint"]


def test_a_healthy_run_asks_for_nothing() -> None:
    chosen = CollapseSettings(on_warning=("checkpoint",), on_collapse=("notify",))
    found = [asked_for(chosen, level) for level in Level]
    assert found == [(), ("checkpoint",), ("notify",)]


def test_nothing_is_done_when_switched_off() -> None:
    assert decide(CollapseSettings(enabled=False), health(Level.COLLAPSED), []) == []


def test_an_action_is_done_once_for_every_time_that_a_level_is_entered() -> None:
    chosen = CollapseSettings()
    history = taken("notify", "checkpoint")
    assert decide(chosen, health(Level.COLLAPSED), history) == []
    assert decide(chosen, health(Level.COLLAPSED), history[:1]) == ["checkpoint"]  # one that was cut short goes on
    assert decide(chosen, health(Level.COLLAPSED, since=20), history) == ["notify", "checkpoint"]
    warned = taken("notify", level=Level.WARNING)
    assert decide(chosen, health(Level.COLLAPSED), warned) == ["notify", "checkpoint"]


def test_what_tells_and_keeps_comes_first() -> None:
    chosen = CollapseSettings(on_collapse=("pause", "raise_kl", "raise_eta", "checkpoint", "notify"))
    assert decide(chosen, health(Level.COLLAPSED), []) == ["notify", "checkpoint", "raise_eta", "raise_kl", "pause"]


def test_rollbacks_are_bounded_and_then_the_run_pauses_where_that_is_asked_for() -> None:
    chosen = CollapseSettings(on_collapse=("rollback", "pause"), max_rollbacks=2)
    once, twice = taken("rollback", since=3), [*taken("rollback", since=3), *taken("rollback", since=5)]
    assert decide(chosen, health(Level.COLLAPSED), once) == ["rollback"]
    assert decide(chosen, health(Level.COLLAPSED), twice) == ["pause"]
    only = chosen.model_copy(update={"on_collapse": ("rollback",)})
    assert decide(only, health(Level.COLLAPSED), twice) == []


def test_what_actions_change_stays_within_bounds() -> None:
    chosen = CollapseSettings(rollback_lr_factor=0.5, eta_factor=2.0, eta_max=0.3, kl_coef_step=0.01, kl_coef_max=0.015)
    assert lowered_lr(chosen, 1e-3, 2) == pytest.approx(2.5e-4)
    assert [raised_eta(chosen, eta) for eta in (0.1, 0.2, 0.4)] == pytest.approx([0.2, 0.3, 0.4])
    assert [raised_kl_coef(chosen, coef) for coef in (0.0, 0.01, 0.5)] == pytest.approx([0.01, 0.015, 0.5])
