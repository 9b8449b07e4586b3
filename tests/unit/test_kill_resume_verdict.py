"""What the kill harness calls the same course, and what it finds wrong: with runs that are only files."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.kill_resume import TARGETS, Rhythm, compare, problems_of, targets_of


def a_run(folder: Path, rows: list[dict[str, Any]], weights: bytes = b"w", said: str = "") -> Any:
    policy = folder / "checkpoints" / "step-00000002" / "policy"
    policy.mkdir(parents=True)
    (policy / "model.safetensors").write_bytes(weights)
    return SimpleNamespace(folder=folder, metrics=lambda: rows, output=lambda: said)


def rows(**changes: Any) -> list[dict[str, Any]]:
    base = {"policy_loss": -0.5, "reward": 20.0, "updates": 1.0, "step_s": 1.0, "busy_idle": 0.5, "mismatch_kl": None}
    return [{"step": 1, "time": 1.0, **base}, {"step": 2, "time": 2.0, **base, **changes}]


def test_clock_is_not_of_the_course(tmp_path: Path) -> None:
    found = compare(a_run(tmp_path / "a", rows()), a_run(tmp_path / "b", rows(step_s=9.0, busy_idle=0.1)))
    assert found.same and found.differences == {} and found.same_weights
    assert (found.steps, found.numbers, found.updates) == (2, 5, 2.0)


@pytest.mark.parametrize("change", [{"policy_loss": -0.5 + 1e-12}, {"reward": 20.001}, {"mismatch_kl": 0.0}])
def test_any_difference_of_a_number_or_of_the_weights_is_another_course(tmp_path: Path, change: dict[str, Any]) -> None:
    calm = a_run(tmp_path / "a", rows())
    found = compare(calm, a_run(tmp_path / "b", rows(**change)))
    assert not found.same and set(found.differences) == set(change) and found.same_weights
    assert not compare(calm, a_run(tmp_path / "c", rows(), b"v")).same


def test_runs_of_other_steps_are_not_compared(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="not the same steps"):
        compare(a_run(tmp_path / "a", rows()), a_run(tmp_path / "b", rows()[:1]))


def test_audit_that_lacks_a_trajectory_or_has_one_twice_is_a_problem(tmp_path: Path) -> None:
    def run(name: str, *trained: tuple[str, int]) -> list[str]:
        events: list[dict[str, Any]] = [{"event": "issued", "group": "g0", "index": 0}]
        events += [{"event": "trained", "group": group, "step": step, "trajectories": ["a"]} for group, step in trained]
        folder = tmp_path / name
        folder.mkdir()
        lines = [*events, {"event": "committed", "step": 2}]
        (folder / "audit.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return problems_of(SimpleNamespace(folder=folder), 2, 1)  # type: ignore[arg-type]

    assert run("good", ("g0", 1)) == []
    assert "0 trajectories are in a committed step, 1 were to be" in run("lost")
    assert any("trained 2 times" in problem for problem in run("twice", ("g0", 1), ("g0", 2)))


def test_kills_are_the_same_for_the_same_seed_and_hit_everything() -> None:
    row = targets_of(10, 0)
    assert row == targets_of(10, 0) != targets_of(10, 1)
    assert {target: row.count(target) >= 2 for target in TARGETS} == dict.fromkeys(TARGETS, True)


def test_rhythm_is_read_from_the_calm_run(tmp_path: Path) -> None:
    run = a_run(tmp_path, rows(step_s=3.0), said="starting\neverything is up after 41 s\n")
    assert Rhythm.of(run) == Rhythm(start_s=41.0, step_s=2.0)
