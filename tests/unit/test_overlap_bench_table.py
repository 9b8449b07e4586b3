"""The table of bench.overlap: which steps count, the order of the runs, both shares and the speed-up."""

from __future__ import annotations

import pytest

from bench.overlap import FIRST, LAST, Means, means_of, order_of, table
from controller.metrics import StepMetrics


def step_of(number: int, step_s: float, bound_s: float) -> StepMetrics:
    values = {"t_generate_s": 5.0, "t_train_s": 4.0, "t_sync_s": 1.0, "step_s": step_s, "overlap_bound_s": bound_s,
              "sampled_tokens": 10.0, "train_tokens": 20.0}  # fmt: skip
    return StepMetrics(step=number, values=values)


def means(step_s: float, bound_s: float, generate_s: float = 5.0) -> Means:
    return Means(4, generate_s, 4.0, 1.0, step_s, bound_s, 10.0, 20.0)


def test_first_and_last_steps_are_left_out() -> None:
    ends = [step_of(1, 900, 1)]
    run = ends * FIRST + [step_of(3, 10, 6), step_of(4, 14, 6)] + ends * LAST
    found = means_of([run, run])
    assert (found.steps, found.step_s, found.bound_s) == (4, 12, 6)
    assert found.share == pytest.approx(0.5)


def test_too_short_or_too_old_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 4 steps"):
        means_of([[step_of(1, 10, 6)] * (FIRST + LAST)])
    with pytest.raises(ValueError, match="overlap_bound_s"):
        means_of([[StepMetrics(step=1, values={"step_s": 1.0})] * 5])


def test_the_runs_take_turns() -> None:
    assert order_of(3) == [(0, 0), (1, 0), (1, 1), (0, 1), (0, 2), (1, 2)]


def test_the_table_has_both_shares_and_the_speed_up() -> None:
    """The overlapping run fills its time with a slower generation: only lock-step's bound shows it."""
    text = table(means(10, 6), means(8, 8, generate_s=7.0))
    assert "| 0 (lock-step) | 4 | 5.00 | 4.00 | 1.00 | 10.00 | 6.00 | 60.0% | 60.0% | 1.00 | 10, 20 |" in text
    assert "| 1 | 4 | 7.00 | 4.00 | 1.00 | 8.00 | 8.00 | 100.0% | 75.0% | 1.25 | 10, 20 |" in text
    assert "1.25 times the shorter one (comparable)" in text
    assert "a speed-up of 1.67" in text


def test_sides_that_differ_too_much_are_said() -> None:
    assert "NOT comparable" in table(means(10, 6, generate_s=8.0), means(8, 8))
