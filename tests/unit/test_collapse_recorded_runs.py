"""The claims of docs/collapse.md, on the recorded runs: collapses are seen in time, healthy runs are left alone."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import pytest

from bench.collapse import Row, find, halved_at, keep, main, read_kept, read_labels, row_of, table
from controller.metrics import StepMetrics, encode

ROOT = Path(__file__).resolve().parents[2]
RECORDED = ROOT / "tests" / "recorded_runs" / "collapse"
LABELS = read_labels(RECORDED / "runs.json")
MISSED = ("collapse-webshop-lr",)
"""Its success was gone in three steps, with no large KL before."""


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    found = [row_of(name, steps, LABELS[name]["label"], LABELS[name]["use"]) for name, steps in find(RECORDED).items()]
    return sorted(found, key=lambda row: (row.label, row.use, row.run))


def test_there_are_enough_runs_and_half_of_them_collapse(rows: list[Row]) -> None:
    assert {row.run for row in rows} == set(LABELS)
    assert sum(row.label == "collapsing" for row in rows) >= 6
    assert sum(row.label == "healthy" for row in rows) >= 6
    assert sum(row.use == "check" for row in rows) >= 4  # of which no threshold knows
    assert sum(file.stat().st_size for file in RECORDED.iterdir()) < 300_000


def test_every_collapse_but_one_is_seen_before_success_has_fallen_by_half(rows: list[Row]) -> None:
    for row in rows:
        if row.label == "collapsing":
            assert row.halved is not None, f"{row.run} did not collapse"
            assert row.collapsed is not None, f"{row.run} was never called collapsed"
            assert row.lead is not None and row.lead_of_collapse is not None
            assert row.lead >= (-1 if row.run in MISSED else 3), f"{row.run}: {row.warned}, halved {row.halved}"
            assert row.lead_of_collapse >= -3


def test_no_healthy_run_is_called_collapsed(rows: list[Row]) -> None:
    for row in rows:
        if row.label == "healthy":
            assert row.collapsed is None, f"{row.run}: collapsed in step {row.collapsed}: {row.cause}"
            assert row.warnings <= 1
    assert sum(row.warnings for row in rows if row.label == "healthy") == 4


def test_the_table_in_the_docs_is_that_of_the_runs(rows: list[Row]) -> None:
    page = (ROOT / "docs" / "collapse.md").read_text(encoding="utf-8")
    assert table(rows) in page, (
        "run: python -m bench.collapse tests/recorded_runs/collapse, and put its table into the page"
    )


def steps_of(success: list[float]) -> list[StepMetrics]:
    return [
        StepMetrics(step=index, values={"success": value}, time=float(index))
        for index, value in enumerate(success, start=1)
    ]


def test_success_is_halved_where_its_mean_stays_down() -> None:
    assert halved_at(steps_of([0.8] * 10 + [0.0] * 5)) == 13  # 0.32 of the best 0.8
    assert halved_at(steps_of([0.8] * 10 + [0.0] * 4 + [0.8] * 6)) is None
    assert halved_at(steps_of([0.1] * 20)) is None
    assert halved_at(steps_of([0.1, 0.0])) is None


def test_a_kept_run_is_the_same_but_for_its_last_digits(tmp_path: Path) -> None:
    steps = [
        StepMetrics(step=1, values={"success": 1 / 3, "entropy": math.nan, "eta_s": 7.0}, time=5.0),
        StepMetrics(step=2, values={"success": 0.5}, time=6.0),
    ]
    keep(tmp_path / "one.jsonl.gz", steps)
    again = read_kept(tmp_path / "one.jsonl.gz")
    assert again[0].values["success"] == 0.33333 and math.isnan(again[0].values["entropy"])
    assert "eta_s" not in again[0].values and again[1].values == {"success": 0.5}
    first = (tmp_path / "one.jsonl.gz").read_bytes()
    keep(tmp_path / "one.jsonl.gz", steps)
    assert (tmp_path / "one.jsonl.gz").read_bytes() == first
    assert json.loads(gzip.decompress(first).splitlines()[1])["step"] == 2


def test_runs_are_found_alone_and_in_folders(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "a"
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text("".join(encode(step) for step in steps_of([0.5] * 6)), encoding="utf-8")
    assert list(find(run)) == list(find(tmp_path / "runs")) == ["a"]
    assert find(tmp_path / "nothing") == {}
    assert row_of("a", find(run)["a"]).label == "?"


def test_a_label_that_is_none_and_a_run_that_is_too_short_are_named(tmp_path: Path) -> None:
    (tmp_path / "runs.json").write_text('{"a": {"label": "ill"}}', encoding="utf-8")
    with pytest.raises(ValueError, match="a: label 'ill': use one of healthy, collapsing"):
        read_labels(tmp_path / "runs.json")
    with pytest.raises(ValueError, match="short: has 2 steps"):
        row_of("short", steps_of([0.5, 0.5]))


def test_the_command_prints_the_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["bench.collapse", str(RECORDED)])
    assert main() == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(LABELS)
