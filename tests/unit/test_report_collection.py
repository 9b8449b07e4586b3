"""What the page is told about a run: curves, kinds, words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from controller.adjustments import Adjustment, note_adjustment
from controller.metric_definitions import METRICS
from controller.report.collection import collect
from controller.report.curves import GROUPS, HEALTH, by_kind, group_of, mean_of, number
from controller.report.summary import algorithm_of, method_of, sentences
from tests.report_runs import make_run


def test_every_metric_of_the_table_has_a_place_on_the_page() -> None:
    assert set(GROUPS.values()) <= set(METRICS)
    assert {group_of(name) for name in METRICS} == {*GROUPS, HEALTH}
    assert group_of("success") == "outcome"
    assert {group_of(name) for name in ("health", "alarms_anything", "actions_rollback")} == {"health"}
    assert group_of("phi_p90") == "exploration" and group_of("grad_norm") == "update" and group_of("step_s") == "flow"
    assert group_of("restarts_env-0") == "flow" and group_of("of_its_own") == "other"


def test_run_is_told_with_its_curves_kinds_and_events(tmp_path: Path) -> None:
    tree = collect([make_run(tmp_path, seed=3)], now=5.0)
    run = tree["runs"][0]
    assert (run["seed"], run["recipe"], run["done"], run["total"], run["ended"]) == (3, "corridor", 4, 4, True)
    assert run["columns"]["approx_kl"] == [None, 2e-4, None, 4e-4]
    assert run["kinds"] == {"steps": [1, 2, 3, 4], "table": {"walk": {"won": [2] * 4, "played": [6] * 4}}}
    assert [event[:2] for event in run["events"]] == [
        ["evaluation", 0], ["checkpoint", 2], ["checkpoint", 4], ["evaluation", 4],
    ]  # fmt: skip
    told = {metric["name"]: metric for metric in tree["metrics"]}
    assert told["entropy"]["unit"] == "nats" and told["entropy"]["sentence"] == METRICS["entropy"].sentence
    assert told["house_of_its_own"]["group"] == "other"
    assert tree["made"] == 5.0


def test_adjustments_are_told_with_their_old_values_and_taken_back_evaluations_left_out(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    for step, lr in ((2, 5e-4), (4, 2e-4)):
        note_adjustment(folder, Adjustment(step, {"learner.lr": lr}, "rollback"))
    with (folder / "audit.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"event": "resumed", "step": 2, "time": 4e9}) + "\n")
    run = collect([folder])["runs"][0]
    begun = str(run["config"]["learner.lr"])
    assert run["adjustments"] == [
        (2, "learner.lr", begun, "0.0005", "rollback"),
        (4, "learner.lr", "0.0005", "0.0002", "rollback"),
    ]
    assert [row["version"] for row in run["evaluations"]] == [0]
    assert not run["ended"]


def test_run_of_no_step_and_of_one_say_so(tmp_path: Path) -> None:
    none = collect([make_run(tmp_path, "none", num_steps=0, evaluated=False)])["runs"][0]
    assert none["sentences"] == ["No step is done yet."] and none["excerpt"]["steps"] == [] and none["last"] is None
    one = collect([make_run(tmp_path, "one", num_steps=1, evaluated=False)])["runs"][0]
    assert one["sentences"] == ["Success in training is 10.0%; nothing was evaluated.", "1 of 4 steps are done."]


def test_run_without_its_tokenizer_says_why_replies_are_text(tmp_path: Path) -> None:
    path = make_run(tmp_path, model="tiny")
    for file in (path / "policy").iterdir():
        file.unlink()
    excerpt = collect([path])["runs"][0]["excerpt"]
    assert "No tokenizer" in excerpt["notes"][0]
    assert all("text" in turn["reply"] for one in excerpt["steps"][0]["shown"] for turn in one["turns"])


def test_hidden_numbers_are_none() -> None:
    assert [number(value) for value in (1, 0.1234567, float("nan"), float("inf"), True, "1", None)] == [
        1.0, 0.123457, None, None, None, None, None,
    ]  # fmt: skip
    assert mean_of([1.0, None, 3.0]) == 2.0 and mean_of([None]) is None


def test_kinds_are_counted_step_by_step() -> None:
    table = by_kind({1: [("a", True), ("b", False)], 4: [("a", False), ("a", True)]})
    assert table == {"a": {"won": [1, 1], "played": [1, 2]}, "b": {"won": [0, 0], "played": [1, 0]}}


def evaluation(
    label: str, version: int, success: float, low: float, high: float, panel: str = "seen"
) -> dict[str, Any]:
    return {
        "label": label,
        "panel": panel,
        "version": version,
        "success": success,
        "interval": [low, high],
        "played": 9,
    }


@pytest.mark.parametrize(
    ("after", "words"),
    [
        ((0.6, 0.5, 0.7), "rose from 20.0% [10.0%, 30.0%] to 60.0% [50.0%, 70.0%]; the intervals do not touch."),
        ((0.3, 0.25, 0.4), "went from 20.0% [10.0%, 30.0%] to 30.0% [25.0%, 40.0%]; the intervals overlap."),
        ((0.05, 0.01, 0.09), "fell from 20.0% [10.0%, 30.0%] to 5.0% [1.0%, 9.0%]; the intervals do not touch."),
    ],
)
def test_summary_compares_the_first_with_the_last_evaluation(after: tuple[float, float, float], words: str) -> None:
    rows = [
        evaluation("before", 0, 0.2, 0.1, 0.3),
        evaluation("during", 2, 0.9, 0.8, 1.0),
        evaluation("after", 4, *after),
    ]
    told = sentences({"steps": 4}, 4, {}, rows)
    assert told[0] == f"Success on 9 tasks of the panel seen {words}"


def test_summary_does_not_compare_two_panels() -> None:
    rows = [evaluation("before", 0, 0.2, 0.1, 0.3, panel="unseen"), evaluation("after", 4, 0.6, 0.5, 0.7)]
    assert sentences({}, 4, {}, rows)[0] == (
        "Success on 9 tasks of the panel seen is 60.0% [50.0%, 70.0%] after 4 steps."
    )


def test_summary_begins_with_bad_health() -> None:
    told = sentences({"steps": 9}, 3, {"success": [0.5] * 3, "health": [0.0, 1.0, 2.0]}, [])
    assert told[0] == "Its health is: collapsed."


def test_method_is_named_by_what_acts() -> None:
    both = {"tti.enabled": True, "tds.enabled": True}
    assert method_of(both) == "T²PO" and method_of({}) == "no interventions"
    assert method_of({**both, "tds.enabled": False, "tti.variant": "budget"}) == "TTI (budget)"
    assert method_of({**both, "tti.variant": "off"}) == "TDS (paper)"
    assert algorithm_of({"algorithm": "ppo"}) == "ppo" and algorithm_of({"advantage.estimator": "rloo"}) == "rloo"
