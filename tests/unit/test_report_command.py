"""`t2po report`: where the page goes, and mistakes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from controller.cli import main
from tests.report_runs import make_run


def test_page_lies_in_the_folder_of_its_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_run(tmp_path)
    assert main(["report", str(path)]) == 0
    assert capsys.readouterr().out.startswith(f"{path / 'report.html'} (")
    assert b"made-s0" in (path / "report.html").read_bytes()


def test_page_of_several_runs_lies_here_or_where_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(make_run(tmp_path, f"made-s{seed}", seed=seed)) for seed in (0, 1)]
    monkeypatch.chdir(tmp_path)
    assert main(["report", *runs]) == 0 and (tmp_path / "report.html").is_file()
    assert main(["report", *runs, "--to", "both.html", "--trajectories", "1"]) == 0
    assert (tmp_path / "both.html").stat().st_size < (tmp_path / "report.html").stat().st_size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent"], "absent'?: no such folder"),
        (["RUN", "absent"], "absent'?: no such folder"),
        (["."], "not a run folder"),
        (["RUN", "--to", "."], "--to .: is a folder"),
        (["RUN", "--to", "no/where.html"], "is no folder; make it first"),
        (["RUN", "--port", "80"], "--port 80: only with --serve"),
        (["RUN", "--serve", "--port", "65536"], "--port 65536: between 0 and 65535"),
        (["RUN", "--serve", "--to", "x.html"], "leave one of the two out"),
        (["RUN", "--trajectories", "-1"], "--trajectories -1: at least 0"),
        (["absent", "--serve"], "absent'?: no such folder"),
        ([".", "--serve"], "not a run folder"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    run = make_run(tmp_path / "runs", num_steps=1)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["report", *[str(run) if one == "RUN" else one for one in arguments]]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert re.search(message, lines[0])
