"""What an evaluation says: totals, intervals, task types, its file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from controller.config import load_config
from controller.eval_result import (
    EvalResult,
    comparison,
    eval_settings,
    lines_of,
    settings_tag,
    summarise,
    was_evaluated,
    write_result,
)
from controller.interval import wilson_interval
from envs.records import Trajectory
from tests.fakes import make_task, make_turn


def trajectory(index: int, kind: str, won: bool, turns: int) -> Trajectory:
    return Trajectory(
        id=f"t{index}", group_id=f"t{index}", task=replace(make_task(index), kind=kind), sibling=0, attempt=0,
        turns=tuple(make_turn(number, valid=number > 0) for number in range(turns)), won=won, duration_s=1.0,
        score=float(won),
    )  # fmt: skip


def result(*overrides: str) -> EvalResult:
    settings = eval_settings(load_config("alfworld", ["seed=3", *overrides]))
    played = [trajectory(0, "walk", True, 2), trajectory(1, "run", False, 4), trajectory(2, "walk", False, 6)]
    return summarise(played, panel="unseen", panel_hash="abc", version=7, settings=settings, duration_s=12.0)


def test_evaluate_summary_counts_by_kind() -> None:
    found = result()
    assert (found.won, found.played) == (1, 3)
    assert found.by_kind == {"run": (0, 1), "walk": (1, 2)}
    assert found.turns == pytest.approx(4.0)
    assert found.invalid_share == pytest.approx(3 / 12)
    assert found.interval == wilson_interval(1, 3)


def test_evaluate_lines_name_panel_interval_and_kinds() -> None:
    first, *kinds = lines_of(result(), "before")
    assert first.startswith("before: unseen 33.3% [6.1%, 79.2%] (1/3 tasks, 4.0 turns")
    assert [line.split()[0] for line in kinds] == ["run", "walk"]
    partly = replace(result(), score=0.625)
    assert "(1/3 tasks, score 0.625, 4.0 turns" in lines_of(partly, "before")[0]


def test_evaluate_file_holds_what_is_needed_to_compare(tmp_path: Path) -> None:
    assert not was_evaluated(tmp_path, "unseen", "before")
    path = write_result(result(), tmp_path, "before")
    assert was_evaluated(tmp_path, "unseen", "before")
    assert not was_evaluated(tmp_path, "unseen", "after")
    row = json.loads(path.read_text(encoding="utf-8"))
    assert row["panel_hash"] == "abc"
    assert (row["version"], row["seed"], row["success"]) == (7, 3, pytest.approx(1 / 3))
    assert row["interval"] == pytest.approx(list(wilson_interval(1, 3)))


def test_evaluate_file_holds_the_settings(tmp_path: Path) -> None:
    path = write_result(result("eval.temperature=0.3", "eval.top_k=7", "eval.num_tasks=50"), tmp_path, "eval")
    row = json.loads(path.read_text(encoding="utf-8"))
    named = {name: row[name] for name in ("temperature", "top_p", "top_k", "num_tasks", "interventions", "seed")}
    assert named == {
        "temperature": 0.3, "top_p": 0.95, "top_k": 7, "num_tasks": 50, "interventions": False, "seed": 3
    }  # fmt: skip
    assert row["label"] == "eval"


def test_evaluate_files_of_other_settings_lie_side_by_side(tmp_path: Path) -> None:
    ways = [
        (), ("eval.interventions=true",), ("eval.interventions=true", "tti.epsilon=0.2"), ("eval.temperature=0",),
        ("eval.top_p=0.5",), ("eval.top_k=3",), ("eval.num_tasks=9",), ("seed=4",), ("env.max_turns=9",),
    ]  # fmt: skip
    found = [result(*way) for way in ways]
    paths = [write_result(one, tmp_path, "eval", settings_tag(one.settings)) for one in found]
    assert len(set(paths)) == len(ways) == len(list(tmp_path.iterdir()))
    again = result("learner.lr=1e-5", "eval.every_steps=3")  # decides nothing about an evaluation
    assert write_result(again, tmp_path, "eval", settings_tag(again.settings)) == paths[0]
    assert not was_evaluated(tmp_path, "unseen", "before")
    assert comparison(tmp_path, "unseen") == "unseen was not evaluated"


def test_evaluate_comparison_is_one_line(tmp_path: Path) -> None:
    assert comparison(tmp_path, "unseen") == "unseen was not evaluated"
    write_result(result(), tmp_path, "before")
    write_result(replace(result(), won=3, version=40), tmp_path, "after")
    assert comparison(tmp_path, "unseen") == (
        "success on unseen (3 tasks): 33.3% [6.1%, 79.2%] before, 100.0% [43.9%, 100.0%] after"
    )


def test_evaluate_of_nothing_is_no_division_by_zero() -> None:
    empty = summarise([], panel="p", panel_hash="", version=0, settings={}, duration_s=0.0)
    assert (empty.success, empty.interval) == (0.0, (0.0, 1.0))
    assert lines_of(empty, "x")
