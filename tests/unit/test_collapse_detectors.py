"""Each detector on made series: it fires on what it is for, and not on healthy ones, gaps, constants, single steps."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from controller.collapse.baseline import before, moving_mean, now, spread
from controller.collapse.detection import FUNCTIONS, INPUTS, detect
from controller.collapse.finding import DETECTORS, Finding, Level
from controller.collapse.outcome_detectors import SURE, outcome_of, stalled
from controller.collapse.settings import CollapseSettings

SETTINGS = CollapseSettings()
STEPS = 40
Values = NDArray[np.float64]


def noisy(level: float | Values, share: float = 0.1) -> Values:
    """A level for `STEPS` steps with noise of a fixed seed, that share of it."""
    return np.full(STEPS, 1.0) * level * (1 + share * np.random.default_rng(7).standard_normal(STEPS))


def change(start: float, end: float, last: int) -> Values:
    """`start`, and in the last steps `end`."""
    return np.concatenate([np.full(STEPS - last, start), np.full(last, end)])


def healthy() -> dict[str, Values]:
    """A run that learns: entropy falls to a sixth, turns fall, success rises."""
    return {
        "success": noisy(np.linspace(0.15, 0.85, STEPS)),
        "trajectories": np.full(STEPS, 64.0),
        "entropy": noisy(np.linspace(0.27, 0.045, STEPS)),
        "turns": noisy(np.linspace(14.0, 9.0, STEPS), 0.05),
        "trajectory_tokens": noisy(np.linspace(290.0, 200.0, STEPS), 0.05),
        "truncated": np.zeros(STEPS),
        "repeated_turns": noisy(0.03, 0.3),
        "format_invalid": noisy(0.005, 0.5),
        "invalid": noisy(0.09, 0.3),
        "approx_kl": noisy(0.002, 0.5),
        "mismatch_kl": noisy(0.001, 0.5),
        "grad_norm": noisy(0.04, 0.3),
        "groups_without_signal": noisy(0.4, 0.3),
        "skipped_steps": np.zeros(STEPS),
        "staleness": np.full(STEPS, 1.0),
        "step_s": noisy(20.0, 0.3),
        "weight_ess": noisy(0.98, 0.01),
    }


def failing() -> dict[str, Values]:
    """The same run at a level of its own, whose success falls by a third at the end."""
    return healthy() | {"entropy": noisy(0.2), "success": change(0.8, 0.5, 4)}


def found(series: dict[str, Values], detector: str) -> Finding:
    return next(one for one in detect(series, SETTINGS) if one.detector == detector)


def test_a_run_that_learns_is_healthy_at_every_step() -> None:
    run = healthy()
    for step in range(SETTINGS.warmup_steps + 1, STEPS + 1):
        findings = detect({name: values[:step] for name, values in run.items()}, SETTINGS)
        assert [one for one in findings if one.level or one.cause] == []


def test_findings_come_in_the_order_of_the_names() -> None:
    assert tuple(one.detector for one in detect(healthy(), SETTINGS)) == DETECTORS
    assert set(FUNCTIONS) | {"several_signs"} == set(DETECTORS)
    assert set(INPUTS) == set(healthy())


@pytest.mark.parametrize(
    ("detector", "changes", "words"),
    [
        ("entropy_collapse", {"entropy": change(0.25, 0.03, 6), "success": noisy(0.3)}, ("0.25", "0.0", "% of its")),
        ("entropy_explosion", {"entropy": change(0.25, 0.6, 5)}, ("0.25", "times")),
        ("kl_spike", {"approx_kl": change(0.002, 0.05, 3)}, ("nats", "0.002")),
        ("gradient_spike", {"grad_norm": change(0.04, 0.6, 3)}, ("0.04", "times")),
        ("gradient_spike", {"skipped_steps": change(0.0, 2.0, 1)}, ("not finite",)),
        ("success_drop", {"success": change(0.8, 0.2, 6)}, ("80%", "fell")),
        ("length_explosion", {"turns": change(6.0, 14.0, 4)}, ("turns a trajectory", "6")),
        ("length_explosion", {"trajectory_tokens": change(200.0, 800.0, 4)}, ("tokens a trajectory", "200")),
        ("length_explosion", {"truncated": change(0.01, 0.6, 4)}, ("length limit", "1%")),
        ("repetition", {"repeated_turns": change(0.03, 0.5, 4)}, ("repeat", "3%")),
        ("format_loss", {"format_invalid": change(0.01, 0.5, 4)}, ("badly formed", "1%")),
        ("format_loss", {"invalid": change(0.05, 0.6, 4)}, ("invalid", "5%")),
        ("dead_groups", {"groups_without_signal": change(0.5, 1.0, 6), "success": noisy(0.3)}, ("teach nothing",)),
        ("staleness", {"staleness": change(1.0, 6.0, 5)}, ("versions old", "1.0 at first")),
        ("off_policy", {"weight_ess": change(0.98, 0.3, 4)}, ("importance weights",)),
        ("off_policy", {"mismatch_kl": change(0.001, 0.2, 4)}, ("nats",)),
        ("stalled", {"step_s": change(20.0, 400.0, 1)}, ("400 s", "20 s")),
    ],
)
def test_fires_with_its_cause_and_numbers(detector: str, changes: dict[str, Values], words: tuple[str, ...]) -> None:
    finding = found(healthy() | changes, detector)
    assert finding.level >= Level.WARNING
    for word in words:
        assert word in finding.cause


@pytest.mark.parametrize(
    ("detector", "changes"),
    [
        ("entropy_collapse", {"entropy": change(0.25, 0.01, 6)}),
        ("entropy_explosion", {"entropy": change(0.2, 0.9, 5)}),
        ("kl_spike", {"approx_kl": change(0.002, 0.3, 4)}),
        ("gradient_spike", {"grad_norm": change(0.04, 3.0, 4)}),
        ("length_explosion", {"turns": change(4.0, 14.0, 4)}),
        ("repetition", {"repeated_turns": change(0.03, 0.6, 4)}),
        ("format_loss", {"format_invalid": change(0.01, 0.6, 4)}),
        ("dead_groups", {"groups_without_signal": change(0.5, 1.0, 6)}),
        ("off_policy", {"weight_ess": change(0.98, 0.05, 4)}),
    ],
)
def test_is_a_collapse_when_success_goes_too(detector: str, changes: dict[str, Values]) -> None:
    assert found(failing() | changes, detector).level == Level.COLLAPSED


def test_gradients_that_stay_infinite_are_a_collapse() -> None:
    assert found(healthy() | {"skipped_steps": change(0.0, 4.0, 4)}, "gradient_spike").level == Level.COLLAPSED


def test_success_below_two_fifths_of_its_best_is_a_collapse() -> None:
    assert found(healthy() | {"success": change(0.8, 0.1, 6)}, "success_drop").level == Level.COLLAPSED


def test_entropy_that_falls_while_success_rises_is_learning() -> None:
    run = healthy() | {"entropy": change(0.25, 0.04, 25)}
    assert not found(run, "entropy_collapse").level
    assert found(run | {"success": noisy(0.3)}, "entropy_collapse").level == Level.WARNING


def test_a_slow_explosion_is_seen_against_the_first_level() -> None:
    assert found(healthy() | {"entropy": np.linspace(0.2, 0.5, STEPS)}, "entropy_explosion").level


def test_a_rate_that_is_too_high_from_the_first_step_on_has_no_healthy_level_to_compare_with() -> None:
    assert found(healthy() | {"approx_kl": np.full(STEPS, 0.06)}, "kl_spike").level == Level.WARNING


def test_a_solved_task_has_dead_groups_and_is_well() -> None:
    run = healthy() | {"success": np.full(STEPS, 1.0), "groups_without_signal": np.full(STEPS, 1.0)}
    assert not any(one.level for one in detect(run, SETTINGS))


def test_a_policy_that_never_succeeds_has_collapsed_with_dead_groups() -> None:
    run = healthy() | {"success": np.zeros(STEPS), "groups_without_signal": np.full(STEPS, 1.0)}
    assert found(run, "dead_groups").level == Level.COLLAPSED


@pytest.mark.parametrize("name", ["approx_kl", "grad_norm", "entropy", "invalid", "turns", "success"])
def test_one_odd_step_is_none(name: str) -> None:
    run = healthy()
    run[name] = run[name].copy()
    run[name][-2] = 0.0 if name == "success" else 30 * run[name][-2]
    assert [one.detector for one in detect(run, SETTINGS) if one.level] == []


def test_two_strange_things_at_once_are_a_collapse_only_while_success_falls() -> None:
    signs = {"approx_kl": change(0.002, 0.05, 4), "invalid": change(0.08, 0.3, 4)}
    assert found(failing() | signs, "several_signs").level == Level.COLLAPSED
    assert "kl_spike and format_loss" in found(failing() | signs, "several_signs").cause
    assert not found(healthy() | signs, "several_signs").level
    assert not found(failing() | {"approx_kl": signs["approx_kl"]}, "several_signs").level


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_short_series_and_missing_metrics_say_nothing(steps: int) -> None:
    for run in ({}, {name: values[:steps] for name, values in healthy().items()}):
        assert [one for one in detect(run, SETTINGS) if one.level] == []


@pytest.mark.parametrize("value", [0.0, math.nan, 0.5])
def test_constants_and_nothing_measured_say_nothing(value: float) -> None:
    flat = {name: np.full(STEPS, value) for name in INPUTS}
    flat |= {name: healthy()[name] for name in ("groups_without_signal", "skipped_steps", "approx_kl", "mismatch_kl")}
    flat |= {"weight_ess": np.full(STEPS, 0.9)}
    flat |= {"success": np.full(STEPS, 0.5 if value == 0 else value)}
    assert [one for one in detect(flat, SETTINGS) if one.level] == []


def test_gaps_are_passed_over() -> None:
    run = healthy() | {"approx_kl": change(0.002, 0.08, 4), "entropy": change(0.25, 0.8, 5)}
    levels = {one.detector: one.level for one in detect(run, SETTINGS)}
    for values in run.values():
        values[5:25:2] = math.nan
    assert {one.detector: one.level for one in detect(run, SETTINGS)} == levels


def test_a_present_that_was_hardly_measured_is_unknown() -> None:
    assert math.isnan(now(np.array([1.0, 1.0, math.nan, math.nan, 9.0]), 3))
    assert now(np.array([1.0, 1.0, math.nan, 8.0, 9.0]), 3) == 8.5


def test_only_the_window_before_the_present_is_compared_with() -> None:
    assert before(np.arange(10.0), 3, 4).tolist() == [3.0, 4.0, 5.0, 6.0]
    assert before(np.arange(2.0), 3, 4).tolist() == []


def test_moving_means_are_those_of_the_definition() -> None:
    values = np.array([1.0, math.nan, 2.0, 3.0, 7.0])
    assert moving_mean(values, 3).tolist() == [2.0, 4.0]
    assert moving_mean(values[:2], 3).tolist() == []


def test_spread_of_normal_values_is_their_standard_deviation() -> None:
    values = np.random.default_rng(3).normal(5.0, 2.0, 20_000)
    assert spread(values) == pytest.approx(2.0, rel=0.03)


def test_noise_of_few_trajectories_is_no_loss() -> None:
    few = {"success": np.concatenate([np.full(20, 0.12), np.full(10, 0.06)]), "trajectories": np.full(30, 16.0)}
    many = few | {"trajectories": np.full(30, 4096.0)}
    assert outcome_of(few, SETTINGS).drop(SURE) == 0
    assert outcome_of(many, SETTINGS).drop(SURE) == pytest.approx(0.5)


def test_a_wait_is_judged_by_the_usual_time_of_a_step() -> None:
    run = healthy()
    assert not stalled(run, SETTINGS, waited_s=100.0).level
    warned, ended = stalled(run, SETTINGS, waited_s=300.0), stalled(run, SETTINGS, waited_s=3000.0)
    assert (warned.level, ended.level) == (Level.WARNING, Level.COLLAPSED)
    assert "no step for 300 s" in warned.cause
    assert not stalled(
        {"step_s": np.full(9, 0.5)}, SETTINGS, waited_s=60.0
    ).level  # fast steps: a checkpoint takes that
    assert not stalled({}, SETTINGS, waited_s=1e6).level  # nothing to compare with before the first step
