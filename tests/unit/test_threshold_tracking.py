"""Thresholds that follow the policy: the rates are held, within bounds, the same in every life of a run."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from controller.config import ConfigError, load_config
from controller.threshold_tracking import ThresholdTracker, TrackingSettings, moved
from envs.records import Thresholds
from tests.fakes import make_candidate, make_group

START = Thresholds(epsilon=0.3, eta=0.001)


def settings(**changes: float) -> TrackingSettings:
    return TrackingSettings.model_validate({"cut_share": 0.2, "resampled_share": 0.15, **changes})


def drifting_policy(step: int, thresholds: Thresholds, noise: np.random.Generator) -> tuple[float, float]:
    """Rates that saturate in the logarithm of their threshold, of a policy that grows surer: a threefold drift."""
    scale = 3 ** (-step / 120)
    cut = 0.6 / (1 + (0.15 * scale / thresholds.epsilon) ** 1.2)
    resampled = 0.9 / (1 + (0.04 * scale / thresholds.eta) ** 0.8)
    return cut * math.exp(0.1 * noise.normal()), resampled * math.exp(0.1 * noise.normal())


def history(tracker: ThresholdTracker, steps: range, seed: int = 0) -> list[tuple[float, float]]:
    rates = []
    for step in steps:
        thresholds = tracker.of_step(step)
        assert thresholds is not None
        rates.append(drifting_policy(step, thresholds, np.random.default_rng((seed, step))))
        tracker.observe(step, *rates[-1])
    return rates


@pytest.mark.parametrize("max_staleness", [0, 1, 4])
def test_rates_are_held_while_the_policy_drifts(max_staleness: int) -> None:
    rates = np.array(history(ThresholdTracker(settings(), START, max_staleness), range(120)))
    held = rates[40:].mean(0)
    assert held == pytest.approx([0.2, 0.15], rel=0.1)
    windows = rates[40:].reshape(-1, 8, 2).mean(1)  # never far off for long either
    assert (np.abs(windows / [0.2, 0.15] - 1) < 0.35).all()


def test_a_step_is_played_under_what_was_known_before_its_slots_were_free() -> None:
    tracker = ThresholdTracker(settings(), START, max_staleness=2)
    assert [tracker.of_step(step) for step in range(3)] == [START] * 3
    tracker.observe(0, 0.0, 0.0)
    assert tracker.of_step(1) == tracker.of_step(2) == START
    third = tracker.of_step(3)
    assert third is not None and third.epsilon > START.epsilon and third.eta > START.eta
    with pytest.raises(KeyError):
        tracker.of_step(4)


def test_a_resumed_run_goes_on_as_if_nothing_had_happened() -> None:
    whole = ThresholdTracker(settings(), START, 1)
    history(whole, range(20))
    first = ThresholdTracker(settings(), START, 1)
    history(first, range(11))
    second = ThresholdTracker(settings(), Thresholds(epsilon=9.0, eta=0.4), 1)
    second.restore(first.state())
    history(second, range(11, 20))
    assert second.state() == whole.state()
    assert [step for step, _, _ in whole.state()] == [20, 21]


def test_moving_is_bounded_and_needs_a_target_and_a_measurement() -> None:
    assert moved(0.1, 0.2, 0.0, 0.3, 1e-3, 1.0) == pytest.approx(0.1 * math.exp(0.3))
    assert moved(0.1, 0.2, 99.0, 0.3, 1e-3, 1.0) == pytest.approx(0.1 * math.exp(-0.3))
    assert moved(0.1, 0.2, 0.2, 0.3, 1e-3, 1.0) == 0.1
    assert moved(0.1, 0.2, 0.0, 0.3, 1e-3, 0.11) == 0.11
    assert moved(0.1, 0.2, 9.0, 2.0, 0.09, 1.0) == 0.09
    assert moved(0.1, 0.0, 0.9, 0.3, 1e-3, 1.0) == 0.1
    assert moved(0.1, 0.2, math.nan, 0.3, 1e-3, 1.0) == 0.1


def test_nothing_is_tracked_unless_a_rate_is_asked_for() -> None:
    tracker = ThresholdTracker(TrackingSettings(), START, 1)
    assert tracker.of_step(0) is None and tracker.of_step(99) is None
    one = ThresholdTracker(settings(resampled_share=0.0), START, 0)
    one.observe(0, 0.0, 0.0)
    assert one.of_step(1) == Thresholds(epsilon=START.epsilon * math.exp(0.5), eta=START.eta)


@pytest.mark.parametrize(
    ("overrides", "piece"),
    [
        (["calibration.cut_share=0.2", "tti=budget"], "calibration.cut_share = 0.2: moves tti.epsilon, which does"),
        (["calibration.resampled_share=0.2", "tds=off"], "calibration.resampled_share = 0.2: moves tds.eta"),
        (["calibration.cut_share=0.2", "tti.epsilon=0"], "tti.epsilon = 0.0: must be from calibration.epsilon_min"),
        (["calibration.cut_share=0.2", "tti.signal=release"], "needs an epsilon"),
        (
            ["calibration.resampled_share=0.2", 'collapse.on_warning=["notify", "raise_eta"]'],
            "command line: collapse.on_warning = raise_eta: would do nothing: with calibration.resampled_share = 0.2",
        ),
        (
            ["calibration.resampled_share=0.2", 'collapse.on_collapse=["raise_eta"]'],
            "leave it out, or set calibration.resampled_share to 0",
        ),
    ],
)
def test_tracking_that_cannot_act_is_refused(overrides: list[str], piece: str) -> None:
    with pytest.raises(ConfigError, match=piece):
        load_config("alfworld", overrides)


def test_probes_rotate_and_tell_what_epsilon_would_cut() -> None:
    tracker = ThresholdTracker(settings(probe_every=4), START, 0)
    groups = [make_group(index, size=4) for index in range(4)]
    probes = [(g.index, t.sibling) for g in groups for t in g.trajectories if tracker.is_probe(g.index, t.sibling)]
    assert probes == [(0, 0), (1, 3), (2, 2), (3, 1)]
    assert tracker.of_trajectory(0, 1, 3) == Thresholds(epsilon=0.0, eta=START.eta)
    assert tracker.of_trajectory(0, 1, 2) == START
    assert math.isnan(tracker.cut_share(0, groups, 1, 1))  # these replies hold no thought

    falling = np.array([0.5, 0.9, 0.5, 0.2, 0.25, 0.2, 0.2, 0.2], np.float32)
    said = make_candidate("a b c d e f g h", think_at=0, num_think_tokens=7, uncertainty=falling)
    thoughtful = [
        replace(
            group,
            trajectories=tuple(
                replace(one, turns=tuple(replace(turn, accepted=said) for turn in one.turns))
                if tracker.is_probe(group.index, one.sibling)
                else one
                for one in group.trajectories
            ),
        )
        for group in groups
    ]
    # peak at 1; the first window of two differences behind it ends at token 3 (mean 0.35), then 4 (0.175): cut 3 of 7
    assert tracker.cut_share(0, thoughtful, 1, 1) == pytest.approx(3 / 7)


def test_without_a_cut_target_nobody_is_a_probe() -> None:
    tracker = ThresholdTracker(settings(cut_share=0.0), START, 0)
    assert not any(tracker.is_probe(index, sibling) for index in range(9) for sibling in range(9))
    assert math.isnan(tracker.cut_share(0, [make_group(0)], 1, 1))
