"""The verdict of bench.flat_memory: what is a leak, what is a warm-up, a jump or noise; and the sizes of its run."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bench.flat_memory import GROUP_SIZE, OVER, Growth, growths_of, size_of, slope_of, table
from bench.flat_memory_plot import draw
from controller.metrics import StepMetrics


def run_of(*values: float, name: str = "memory_mb_router", trajectories: float = 100.0) -> list[StepMetrics]:
    return [
        StepMetrics(step=number, values={"trajectories": trajectories, name: value})
        for number, value in enumerate(values, start=1)
    ]


def only(steps: list[StepMetrics]) -> Growth:
    (growth,) = growths_of(steps)
    return growth


def test_slope_is_that_of_a_line_and_one_jump_does_not_move_it() -> None:
    places = list(range(20))
    line = [3.0 * place + 1 for place in places]
    assert slope_of(places, line) == pytest.approx(3)
    line[7] += 1000
    assert slope_of(places, line) == pytest.approx(3, abs=0.01)
    assert slope_of([1], [5]) == 0.0
    assert slope_of([1, 1], [5, 9]) == 0.0


def test_a_leak_is_told_by_its_role_and_its_size() -> None:
    noise = random.Random(0)
    leak = only(run_of(*(200 + 0.5 * step + noise.uniform(-2, 2) for step in range(100))))
    assert (leak.role, leak.measure, leak.flat) == ("router", "memory_mb", False)
    assert leak.growth == pytest.approx(0.5 / 100 * OVER, rel=0.05)


def test_a_warm_up_in_the_first_half_and_noise_are_no_leak() -> None:
    noise = random.Random(0)
    steps = run_of(*(min(200 + 20 * step, 900) + noise.uniform(-2, 2) for step in range(100)))
    assert only(steps).flat
    assert only(steps).level == pytest.approx(900, abs=2)


def test_a_large_process_may_vary_by_its_size_and_a_small_one_by_a_few() -> None:
    assert Growth("engine", "memory_mb", 2000, 99).flat and not Growth("engine", "memory_mb", 2000, 101).flat
    assert Growth("other", "memory_mb", 20, 19).flat and not Growth("other", "memory_mb", 20, 21).flat
    assert Growth("env", "fds", 50, 4).flat and not Growth("env", "fds", 50, 6).flat
    assert Growth("env", "fds", 50, -40).flat


def test_a_part_that_was_not_measured_in_some_steps_counts_where_it_was() -> None:
    steps = run_of(*([100.0] * 10))
    steps[7].values["memory_mb_router"] = float("nan")
    del steps[8].values["memory_mb_router"]
    assert only(steps).growth == 0


def test_a_run_without_such_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="no step of this run"):
        growths_of([StepMetrics(step=1, values={"trajectories": 4.0})])
    with pytest.raises(ValueError, match="no step of this run"):
        growths_of([])


def test_the_table_names_what_grows() -> None:
    text = table([Growth("env", "memory_mb", 230.0, 5.0), Growth("env", "fds", 50.0, 500.0)])
    assert "| env | 230, +0.50 |  | 50, +50.00 |  | grows: fds |" in text


@pytest.mark.parametrize("trajectories", [1, 4, 399, 400, 500, 9_999, 10_000])
def test_a_run_has_at_least_as_many_trajectories_as_asked_for(trajectories: int) -> None:
    groups, steps = size_of(trajectories)
    assert trajectories <= groups * GROUP_SIZE * steps < trajectories + groups * GROUP_SIZE
    assert steps <= 200


def test_the_picture_has_a_line_for_each_role_that_was_measured(tmp_path: Path) -> None:
    steps = [
        StepMetrics(step=step, values={"trajectories": 100.0, "memory_mb_router": 80.0 + step, "fds_learner": 40.0})
        for step in range(1, 5)
    ]
    draw(steps, tmp_path / "memory.svg")
    text = (tmp_path / "memory.svg").read_text()
    assert [role in text for role in ("<!-- router -->", "<!-- learner -->", "<!-- engine -->")] == [True, True, False]
