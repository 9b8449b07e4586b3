"""What the report reads of run folders that are whole, damaged, old, or being written."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import pytest

from controller.report.collection import collect
from controller.report.run_files import ReportError, marks_of, read_run
from controller.report.run_log import LogLine, read_log, zone_offset
from tests.report_runs import make_run


def test_run_is_read_as_its_writers_wrote_it(tmp_path: Path) -> None:
    path = make_run(tmp_path, num_steps=3)
    run = read_run(path)
    assert run.name == "made-s0" and run.identity["recipe"] == "corridor" and run.config["seed"] == 0
    assert list(run.steps) == [1, 2, 3] and list(run.trajectories) == [1, 2, 3]
    assert run.steps[1]["approx_kl"] is None and run.steps[2]["approx_kl"] == pytest.approx(2e-4)
    assert [row["label"] for row in run.evaluations] == ["before", "after"]
    assert run.policy == path / "policy" and run.notes == ()


def test_last_line_that_is_being_written_is_passed_over_in_silence(tmp_path: Path) -> None:
    path = make_run(tmp_path)
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "succ')
    run = read_run(path)
    assert list(run.steps) == [1, 2, 3, 4] and run.notes == ()


def test_damaged_lines_and_files_are_left_out_and_named(tmp_path: Path) -> None:
    path = make_run(tmp_path)
    lines = (path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (path / "metrics.jsonl").write_text(lines[0] + "zzz\n" + '["no", "object"]\n' + "".join(lines[1:]))
    (path / "versions.json").write_text("{")
    (path / "trajectories" / "step-00000004.jsonl.gz").write_bytes(gzip.compress(b"{" * 99)[:-20])
    (path / "evaluations" / "unseen-v000000-before.json").write_bytes(b"\xff\xfe")
    tree = collect([path])
    run = tree["runs"][0]
    assert run["steps"] == [1, 2, 3, 4] and run["done"] == 4
    assert run["versions"] == {}
    assert [row["label"] for row in run["evaluations"]] == ["after"]
    told = " ".join(run["notes"] + run["excerpt"]["notes"])
    for name in ("metrics.jsonl: lines left out that are no JSON: 1", "versions.json", "before.json", "step-00000004"):
        assert name in told


def test_values_that_are_no_number_are_absent(tmp_path: Path) -> None:
    path = make_run(tmp_path, num_steps=1, evaluated=False)
    (path / "metrics.jsonl").write_text(
        '{"step": 1, "time": 1e9, "success": NaN, "entropy": Infinity, "turns": true, "lr": "0", "reward": 2}\n'
    )
    assert collect([path])["runs"][0]["columns"] == {"reward": [2.0]}


def test_config_alone_makes_a_run(tmp_path: Path) -> None:
    """As a run of another version may be, or one that has only just begun."""
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.toml").write_text("seed = 7\n")
    run = collect([tmp_path / "bare"])["runs"][0]
    assert run["seed"] == 7 and run["steps"] == [] and run["done"] == 0 and run["created"] is None
    assert run["sentences"] == ["No step is done yet."]


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_what_is_no_run_is_named_with_a_remedy(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReportError, match=rf"{name}: (no such run folder|not a run folder).*; name"):
        read_run(tmp_path / name)


def test_marks_change_with_every_file_that_is_shown(tmp_path: Path) -> None:
    path = make_run(tmp_path)
    before = marks_of(path)
    assert marks_of(path) == before
    for name in ("metrics.jsonl", "audit.jsonl", "events.jsonl", "run.log", "trajectories/step-00000009.jsonl.gz"):
        with (path / name).open("a") as file:
            file.write("\n")
        after = marks_of(path)
        assert after != before
        before = after


def test_log_messages_tell_a_trace_by_its_cause(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    log.write_text(
        "2026-01-02 03:04:05,678 INFO controller.cluster: up\n"
        "2026-01-02 03:04:06,000 ERROR controller.train: the run ended\n"
        "Traceback (most recent call last):\n"
        '  File "x.py", line 1, in f\n'
        "controller.deadline.DeadlineError: learner: not done\n"
        "2026-99-99 03:04:07,000 WARNING a.b: no such day\n"
        "2026-01-02 03:04:08,000 WARNING a.b: late\n"
    )
    lines = read_log(log, [])
    assert [line.text for line in lines] == [
        "up", "the run ended: controller.deadline.DeadlineError: learner: not done", "late",
    ]  # fmt: skip
    assert lines[1] == LogLine(lines[0].time + 1, "ERROR", "controller.train", lines[1].text)


@pytest.mark.parametrize("zone_h", [-9.5, -5, 0, 1, 5.75, 13])
@pytest.mark.parametrize("delay_s", [0, 40, 700])
def test_zone_of_a_log_follows_from_when_the_run_was_created(zone_h: float, delay_s: float) -> None:
    created = 1_795_459_895.9
    offset = zone_offset(created, math.floor(created + delay_s + zone_h * 3600))
    assert offset == zone_h * 3600
