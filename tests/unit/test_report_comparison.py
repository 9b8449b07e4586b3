"""Several runs: which repeat each other, what differs, and their common curve."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.report.collection import collect
from controller.report.comparison import band, evaluated, final_numbers, flat, sets_of
from tests.report_runs import make_run


def test_runs_that_differ_in_the_seed_alone_are_one_set(tmp_path: Path) -> None:
    paths = [
        make_run(tmp_path, "a-s0", seed=0),
        make_run(tmp_path, "b-s0", seed=0, learner={"lr": 0.5}),
        make_run(tmp_path / "elsewhere", "a-s1", seed=1, metrics={"port": 0}),
    ]
    tree = collect(paths)
    assert [(one["label"], one["members"]) for one in tree["sets"]] == [("a", [0, 2]), ("b", [1])]
    assert [one["differs"] for one in tree["sets"]] == [{"learner.lr": "0.0001"}, {"learner.lr": "0.5"}]
    curve = tree["sets"][0]["band"]
    assert curve["steps"] == [1, 2, 3, 4]
    success = curve["columns"]["success"]
    assert success["low"][0] == pytest.approx(0.1) and success["high"][0] == pytest.approx(0.11)
    assert success["mean"][0] == pytest.approx(0.105) and success["runs"] == [2, 2, 2, 2]
    assert tree["sets"][1]["band"] is None


def test_sets_of_one_name_are_called_by_what_tells_them_apart() -> None:
    names = ["shop-s0-20260101-000000", "shop-s1-20260102-000000", "shop-s2"]
    configs = [
        {"model": "/m/cold", "steps": 9, "tti.enabled": True},
        {"model": "/m/cold", "steps": 9, "tti.enabled": False},
        {"model": "/m/warm", "steps": 9, "tti.enabled": True},
    ]
    assert [one.label for one in sets_of(names, configs)] == [
        "shop (model cold, tti.enabled true)", "shop (model cold, tti.enabled false)",
        "shop (model warm, tti.enabled true)",
    ]  # fmt: skip


def test_setting_that_only_one_version_knows_differs() -> None:
    (first, second) = sets_of(["a", "b"], [{"x": 1}, {"x": 1, "tds.new": 0.5}])
    assert first.differs == {"tds.new": "absent"} and second.differs == {"tds.new": "0.5"}


def test_sets_whose_ends_of_paths_are_alike_are_numbered() -> None:
    labels = [one.label for one in sets_of(["r", "r"], [{"model": "/a/cold"}, {"model": "/b/cold"}])]
    assert labels == ["r (model cold) #1", "r (model cold) #2"]


def test_band_counts_the_runs_that_measured_a_step() -> None:
    curve = band([[1, 2, 3], [1, 2]], [{"x": [1.0, None, 5.0]}, {"x": [3.0, None]}])
    assert curve == {
        "steps": [1, 2, 3],
        "columns": {
            "x": {"mean": [2.0, None, 5.0], "low": [1.0, None, 5.0], "high": [3.0, None, 5.0], "runs": [2, 0, 1]}
        },
    }


def test_final_numbers_are_of_the_last_ten_steps_and_absent_where_not_measured() -> None:
    numbers = final_numbers({"success": [0.0] * 5 + [1.0] * 10, "grad_norm": [9.0, None]}, [], [0.0, 120.0])
    assert numbers["success"] == 1.0 and numbers["largest gradient norm"] == 9.0
    assert numbers["minutes of training"] == 2.0 and numbers["entropy"] is None


def test_evaluations_on_two_panels_are_two_numbers() -> None:
    rows = [
        {"label": "after", "panel": panel, "success": value} for panel, value in (("a", 0.1), ("b", 0.2), ("a", 0.3))
    ]
    assert evaluated(rows) == {"evaluated after on a": 0.3, "evaluated after on b": 0.2}


def test_configuration_is_flattened_by_section() -> None:
    assert flat({"seed": 1, "env": {"name": "x", "search": {"topk": 3}}}) == {
        "seed": 1, "env.name": "x", "env.search.topk": 3,
    }  # fmt: skip
