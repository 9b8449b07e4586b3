"""States of a run: hysteresis, warm-up, and that a resumed run comes to the same states."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.collapse.detection import INPUTS
from controller.collapse.finding import DETECTORS, Finding, Level
from controller.collapse.observatory import Health, Observatory
from controller.collapse.settings import CollapseSettings
from controller.collapse.state import State, advance

H, W, C = Level.HEALTHY, Level.WARNING, Level.COLLAPSED
SETTINGS = CollapseSettings(steps_to_enter=2, steps_to_leave=3)


def levels_after(seen: list[Level], chosen: CollapseSettings = SETTINGS) -> list[Level]:
    """The state after each step in which one detector saw these levels."""
    state, levels = State(), []
    for step, level in enumerate(seen, start=1):
        cause = f"saw {level} in step {step}" if level else ""
        state = advance(state, step, [Finding("kl_spike", level, cause)], chosen)
        levels.append(state.level)
    return levels


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ([W, H, W, H, W], [H, H, H, H, H]),  # never two in a row
        ([W, W, H, H, H], [H, W, W, W, H]),
        ([W, W, H, H, W, H, H, H], [H, W, W, W, W, W, W, H]),  # one more sign begins the wait again
        ([C, W, H], [H, W, W]),  # both were a warning at least
        ([C, C, W, W, W, H, H, H], [H, C, C, C, W, W, W, H]),  # step by step, not at once
        ([W, W, C, C], [H, W, W, C]),
    ],
)
def test_a_level_is_believed_after_steps_in_a_row(seen: list[Level], expected: list[Level]) -> None:
    assert levels_after(seen) == expected


def test_one_step_is_enough_where_that_is_asked_for() -> None:
    assert levels_after([W, H, C, H], CollapseSettings(steps_to_enter=1, steps_to_leave=1)) == [W, H, C, H]


def test_since_and_cause_are_those_of_the_level() -> None:
    state = State()
    for step, level in enumerate([H, W, W, C, C, H], start=1):
        state = advance(state, step, [Finding("kl_spike", level, f"saw {level} in step {step}")], SETTINGS)
    assert (state.step, state.level, state.since) == (6, C, 5)
    assert state.watches["kl_spike"].cause == "saw collapsed in step 5"


def test_the_run_is_at_the_highest_level_of_its_detectors() -> None:
    findings = [Finding("kl_spike", W, "kl"), Finding("repetition", C, "echo"), Finding("staleness")]
    state = advance(advance(State(), 1, findings, SETTINGS), 2, findings, SETTINGS)
    assert state.level == C
    assert {name: watch.level for name, watch in state.watches.items()} == {
        "kl_spike": W,
        "repetition": C,
        "staleness": H,
    }


def test_the_state_before_is_left_as_it_was() -> None:
    before = advance(State(), 1, [Finding("kl_spike", W, "kl")], SETTINGS)
    advance(before, 2, [Finding("kl_spike", W, "kl")], SETTINGS)
    assert before.level == H and before.watches["kl_spike"].level == H


def course(num_steps: int, ill_from: int = 10**6) -> list[tuple[int, dict[str, float]]]:
    """A run whose updates become too large and whose replies break from one step on."""
    rows = []
    for step in range(1, num_steps + 1):
        ill = step >= ill_from
        rows.append(
            (
                step,
                {
                    "success": 0.5 if ill else 0.6,
                    "trajectories": 64.0,
                    "approx_kl": 0.05 if ill else 0.002,
                    "invalid": 0.5 if ill else 0.08,
                    "entropy": 0.2,
                },
            )
        )
    return rows


def test_a_course_that_turns_ill_is_told_with_its_causes() -> None:
    healths = [Observatory(CollapseSettings(), course(step, ill_from=20)).health for step in range(1, 31)]
    assert all(health.level == H and health.causes == () for health in healths[:20])
    warned = next(health for health in healths if health.level == W)
    assert warned.step <= 23
    last = healths[-1]
    assert last.level == C
    assert any("nats" in cause for cause in last.causes) and any("invalid" in cause for cause in last.causes)
    assert last.since == next(health.step for health in healths if health.level == C)
    assert last.detectors[0][0] == DETECTORS[0] and len(last.detectors) == len(DETECTORS)


def test_nothing_is_judged_in_the_warm_up() -> None:
    ill = course(10, ill_from=1)
    late = CollapseSettings(warmup_steps=9)
    assert Observatory(late, ill).health == Health(step=10)  # seen once, not yet twice
    assert Observatory(late.model_copy(update={"warmup_steps": 4}), ill).health.level == W


def test_metrics_are_health_and_an_alarm_for_each_detector() -> None:
    metrics = Observatory(CollapseSettings(), course(30, ill_from=20)).health.metrics()
    assert metrics["health"] == 2.0 and metrics["alarms_kl_spike"] == 1.0 and metrics["alarms_stalled"] == 0.0
    assert set(metrics) == {"health", *(f"alarms_{name}" for name in DETECTORS)}


def test_the_last_healthy_step_is_before_the_first_sign() -> None:
    observatory = Observatory(CollapseSettings(), course(30, ill_from=20))
    assert observatory.last_healthy_step in (19, 20)  # the median of three steps sees step 20 in step 21
    assert Observatory(CollapseSettings()).last_healthy_step == 0


def test_waiting_for_long_shows_and_changes_nothing() -> None:
    rows = [(step, values | {"step_s": 10.0}) for step, values in course(12)]
    observatory = Observatory(CollapseSettings(), rows)
    assert observatory.waiting(60.0) == observatory.health
    stalled = observatory.waiting(200.0)
    assert (stalled.level, dict(stalled.detectors)["stalled"]) == (W, W)
    assert "no step for 200 s" in stalled.causes[0]
    assert observatory.health.level == H


def test_what_is_not_a_number_counts_as_not_measured() -> None:
    gaps = [(step, dict.fromkeys(INPUTS, math.nan)) for step in range(1, 12)]
    assert Observatory(CollapseSettings(), gaps).health == Health(step=11)
    assert Observatory(CollapseSettings(), [(1, {}), (2, {})]).health == Health(step=2)


def test_steps_come_once_and_in_order() -> None:
    observatory = Observatory(CollapseSettings(), course(5))
    with pytest.raises(ValueError, match="step 5: comes after step 5"):
        observatory.observe(5, {})


MEASURED = st.one_of(st.just(math.nan), st.floats(0, 2))
ROWS = st.lists(st.fixed_dictionaries(dict.fromkeys(INPUTS, MEASURED)), min_size=1, max_size=40)


@settings(max_examples=40, deadline=None)
@given(rows=ROWS, split=st.integers(0, 40))
def test_a_resumed_run_comes_to_the_same_states(rows: list[dict[str, float]], split: int) -> None:
    steps = list(enumerate(rows, start=1))
    whole = Observatory(SETTINGS)
    expected = [whole.observe(*step) for step in steps]
    resumed = Observatory(SETTINGS, steps[:split])
    assert [resumed.observe(*step) for step in steps[split:]] == expected[split:]
    assert resumed.health == whole.health and resumed.last_healthy_step == whole.last_healthy_step


@settings(max_examples=20, deadline=None)
@given(rows=ROWS)
def test_only_the_past_counts(rows: list[dict[str, float]]) -> None:
    steps = list(enumerate(rows, start=1))
    healths = [Observatory(SETTINGS, steps[: index + 1]).health for index in range(len(steps))]
    whole = Observatory(SETTINGS)
    assert [whole.observe(*step) for step in steps] == healths
