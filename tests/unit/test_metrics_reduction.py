"""Groups to numbers, the JSON lines file, and what a resumed run keeps of it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from controller.metric_definitions import METRICS, definition
from controller.metrics import MetricsError, MetricsLog, MovingMean, StepMetrics, read_metrics
from controller.rollout_metrics import rollout_metrics
from envs.records import Trajectory, TrajectoryGroup
from tests.fakes import make_candidate, make_task, make_turn

NAN = math.nan


def make_trajectory(sibling: int, turns: tuple, won: bool) -> Trajectory:
    return Trajectory(
        id=f"t{sibling}",
        group_id="g",
        task=make_task(),
        sibling=sibling,
        attempt=0,
        turns=turns,
        won=won,
        duration_s=1.0,
    )


def two_trajectories() -> TrajectoryGroup:
    """One trajectory of two turns that won, one of one turn that lost; three tokens a reply."""
    text = "a b c"
    cut = make_candidate(text, fired="uncertainty", fired_at=1, entropy=np.array([1.0, NAN, NAN], dtype=np.float32))
    capped = make_candidate(text, fired="cap", fired_at=1)
    first = make_turn(accepted=cut, rejected=(capped, make_candidate(text)), reward=0.0)
    second = make_turn(accepted=make_candidate(text, phi=NAN), reward=10.0, done=True)
    lost = make_turn(accepted=make_candidate(text, min_version=2, max_version=3), valid=False, format_valid=False)
    won = make_trajectory(0, (first, second), True)
    return TrajectoryGroup(id="g", index=0, task=make_task(), trajectories=(won, make_trajectory(1, (lost,), False)))


def test_reduction_counts_turns_and_tokens_by_hand() -> None:
    values = rollout_metrics([two_trajectories()], version=3)
    assert values["success"] == 0.5
    assert values["reward"] == 5.0
    assert values["turns"] == 1.5
    assert values["turns_of_success"] == 2.0
    assert values["groups_without_signal"] == 0.0
    assert values["trajectory_tokens"] == (6 + 3) / 2
    assert values["invalid"] == pytest.approx(1 / 3)
    assert values["forced_share"] == pytest.approx(1 / 3)
    assert values["forced_by_cap"] == 0.0
    assert values["interventions"] == pytest.approx(2 / 3)  # the one thrown away was cut too
    assert values["resamples"] == pytest.approx(2 / 3)
    assert values["rejected_tokens"] == 2.0
    assert values["staleness"] == pytest.approx((3 + 3 + 1) / 3)
    assert values["staleness_max"] == 3.0
    assert values["sampled_tokens"] == 15.0
    assert values["entropy"] == pytest.approx(1.0)  # seven tokens measured, two forced
    assert values["phi"] == 0.5  # the turn without a measurement is left out, not counted as 0


def test_reduction_of_the_distributions_by_hand() -> None:
    thought = np.array([0.9, 0.2, 0.5, 0.4, NAN], dtype=np.float32)
    look = make_candidate("a b c d e", uncertainty=thought, think_at=1, num_think_tokens=3, phi=0.1)
    turns = tuple(
        make_turn(0, accepted=look, action=action, observation="hall") for action in ("go", "look", "go", "go")
    )
    group = TrajectoryGroup(
        id="g",
        index=0,
        task=make_task(),
        trajectories=(make_trajectory(0, turns, False), make_trajectory(1, (make_turn(reward=3.0),), True)),
    )
    values = rollout_metrics([group], version=0)
    assert values["repeated_turns"] == pytest.approx(2 / 5)  # the third and fourth of the five turns
    assert values["marginal_change"] == pytest.approx((0.3 + 0.1) / 2)  # inside the thought alone
    assert values["reward_std"] == pytest.approx(1.5)
    assert values["phi_p50"] == pytest.approx(0.1)
    assert values["uncertainty_p90"] == pytest.approx(0.9)
    assert values["uncertainty_p10"] == pytest.approx(0.2)


def test_nothing_measured_is_nan_and_never_zero() -> None:
    values = rollout_metrics([], version=0)
    assert math.isnan(values["success"])
    assert math.isnan(values["entropy"])
    assert math.isnan(values["turns_of_success"])
    assert values["trajectories"] == 0.0


def test_every_metric_has_a_sentence_and_unknown_ones_pass() -> None:
    for metric in METRICS.values():
        assert metric.sentence.endswith("."), metric.name
    assert set(rollout_metrics([two_trajectories()], version=3)) <= set(METRICS)
    assert "strange_thing" in definition("strange_thing").sentence


def test_moving_mean_forgets_and_skips_what_was_not_measured() -> None:
    moving = MovingMean(window=2)
    assert math.isnan(moving.value)
    for value in (1.0, NAN, 0.0, 0.5):
        moving.add(value)
    assert moving.value == 0.25


def test_log_is_strict_json_and_reads_back(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "run" / "metrics.jsonl")
    log.write(StepMetrics(step=1, values={"success": 0.25, "phi": NAN, "kl": math.inf}, time=5.0))
    log.close()
    line = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert json.loads(line, parse_constant=pytest.fail) == {
        "step": 1, "time": 5.0, "success": 0.25, "phi": None, "kl": None,
    }  # fmt: skip
    (back,) = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert back.values["success"] == 0.25
    assert math.isnan(back.values["phi"])


def test_resume_drops_later_steps_and_a_line_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    for step in (1, 2, 3):
        log.write(StepMetrics(step=step, values={"success": step / 10}))
    log.close()
    with path.open("a") as file:
        file.write('{"step": 4, "ti')
    log = MetricsLog(path, resume_step=2)
    log.write(StepMetrics(step=3, values={"success": 0.9}))
    log.close()
    assert [(s.step, s.values["success"]) for s in read_metrics(path)] == [(1, 0.1), (2, 0.2), (3, 0.9)]


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('nonsense\n{"step": 1, "time": 2}\n')
    with pytest.raises(MetricsError, match=r"metrics.jsonl:1"):
        read_metrics(path)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MetricsError, match="runs_dir"):
        MetricsLog(tmp_path / "file" / "metrics.jsonl")


def test_a_full_disk_is_named() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this system")
    log = MetricsLog(full)
    with pytest.raises(MetricsError, match="No space left"):
        log.write(StepMetrics(step=1, values={}))
