"""The overlap gauge: lock-step, perfect overlap, sync that hides, and that it never claims more than is possible."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.busy import BusyMeter, Period
from controller.metric_definitions import METRICS
from controller.overlap_bound import GENERATING, SYNCING, TRAINING, overlap_of
from controller.update import PARTS

SPANS = st.lists(st.tuples(st.floats(-5, 15), st.floats(0, 8)).map(lambda one: (one[0], one[0] + one[1])), max_size=6)


def test_lockstep_reaches_the_longer_side_and_the_sync_over_the_sum() -> None:
    step = Period(0, 10, {"generation": [(0, 5)], "learner": [(5, 9)], "weights": [(9, 10)]})
    found = overlap_of(step)
    assert (found["t_generate_s"], found["t_train_s"], found["t_sync_s"]) == (5, 4, 1)
    assert found["overlap_bound_s"] == 5 + 1
    assert found["overlap_share"] == pytest.approx((5 + 1) / (5 + 4 + 1))


@pytest.mark.parametrize("trained_until", [2.0, 9.0])
def test_perfect_overlap_is_one(trained_until: float) -> None:
    step = Period(0, 10, {"generation": [(0, 9)], "learner": [(0, trained_until)], "weights": [(9, 10)]})
    assert overlap_of(step)["overlap_share"] == pytest.approx(1)


def test_time_in_which_nothing_works_is_lost() -> None:
    step = Period(0, 20, {"generation": [(0, 9)], "learner": [(0, 9)], "weights": [(9, 10)]})
    assert overlap_of(step)["overlap_share"] == pytest.approx(0.5)


def test_sync_beside_generation_counts_once_and_still_holds_up_the_learner() -> None:
    """A checkpoint of 4 s, generation all the time: 10 + 4 s would be more than the step."""
    step = Period(0, 10, {"generation": [(0, 10)], "learner": [(0, 6)], "checkpoint": [(6, 10)]})
    assert overlap_of(step)["overlap_bound_s"] == 10
    learner_bound = Period(0, 10, {"generation": [(6, 10)], "learner": [(0, 6)], "checkpoint": [(6, 10)]})
    assert overlap_of(learner_bound)["overlap_bound_s"] == 6 + 4


def test_environments_are_part_of_generation_and_other_steps_are_not() -> None:
    step = Period(10, 20, {"generation": [(0, 11), (12, 13)], "environments": [(12.5, 15), (19, 30)]})
    assert overlap_of(step)["t_generate_s"] == pytest.approx(1 + 3 + 1)


@given(generation=SPANS, environments=SPANS, learner=SPANS, weights=SPANS, checkpoint=SPANS)
def test_the_gauge_is_never_above_one_nor_the_bound_below_a_side(
    generation: list[tuple[float, float]],
    environments: list[tuple[float, float]],
    learner: list[tuple[float, float]],
    weights: list[tuple[float, float]],
    checkpoint: list[tuple[float, float]],
) -> None:
    found = overlap_of(
        Period(0, 10, {"generation": generation, "environments": environments, "learner": learner,
                       "weights": weights, "checkpoint": checkpoint})
    )  # fmt: skip
    assert 0 <= found["overlap_share"] <= 1 + 1e-9
    sides = max(found["t_generate_s"], found["t_train_s"])
    assert sides - 1e-9 <= found["overlap_bound_s"] <= sides + found["t_sync_s"] + 1e-9


def test_the_sides_are_all_parts_that_are_measured() -> None:
    assert sorted((*GENERATING, *TRAINING, *SYNCING)) == sorted(PARTS)


def test_every_number_is_defined() -> None:
    assert overlap_of(Period(0, 1, {})).keys() <= METRICS.keys()


def test_a_period_of_the_meter_ends_where_the_next_begins() -> None:
    times = iter([0.0, 4.0, 8.0])
    meter = BusyMeter(lambda: next(times))
    meter.add("learner", [(3, 5)])
    first, second = meter.period(), meter.period()
    assert (first.since, first.until, second.since, second.until) == (0, 4, 4, 8)
    assert (first.covered("learner"), second.covered("learner")) == (1, 1)
