"""Wilson intervals against their definition, known values and their coverage."""

from __future__ import annotations

import math

import pytest

from controller.interval import Z_95, wilson_interval


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (1, 3), (5, 10), (67, 134), (134, 134), (999, 1000)])
def test_interval_bounds_solve_the_score_equation(successes: int, trials: int) -> None:
    rate = successes / trials
    for bound in wilson_interval(successes, trials):
        assert 0 <= bound <= 1
        assert (rate - bound) ** 2 == pytest.approx(Z_95**2 * bound * (1 - bound) / trials, abs=1e-12)


def test_interval_known_values() -> None:
    # Newcombe (1998), table I: 81/263 and 0/20.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_interval_of_nothing_is_everything() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="3 successes in 2 trials"):
        wilson_interval(3, 2)


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.5, 0.9])
def test_interval_covers_the_true_rate_about_95_times_in_100(rate: float) -> None:
    trials = 134
    covered = 0.0
    for successes in range(trials + 1):
        low, high = wilson_interval(successes, trials)
        if low <= rate <= high:
            covered += math.comb(trials, successes) * rate**successes * (1 - rate) ** (trials - successes)
    assert 0.92 < covered < 0.98
