"""How a comparison ends: its exit code, what is printed, the fixture."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from envs.alfworld import differential as alfworld
from envs.comparison import Progress, Record, run_comparison, speeds
from envs.data_folder import DataError
from envs.webshop import differential as webshop


class Found:
    def __init__(self, *mismatches: dict[str, Any]) -> None:
        self.mismatches = list(mismatches)

    def report(self) -> dict[str, Any]:
        return {"steps": 7, "mismatches": self.mismatches}


@pytest.mark.parametrize("found", [Found(), Found({"task": "t", "ours": 1, "theirs": 2})])
def test_the_report_is_printed_and_decides_the_exit_code(
    found: Found, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def compare(progress: Progress, record: Record) -> Found:
        progress("1/1")
        record({"steps": ["Größe"]})
        return found

    fixture = tmp_path / "walks.jsonl.xz"
    assert run_comparison(compare, fixture) == len(found.mismatches)
    said = capsys.readouterr()
    assert json.loads(said.out) == found.report() and said.err == "1/1\n"
    assert json.loads(lzma.decompress(fixture.read_bytes())) == {"steps": ["Größe"]}


def test_what_cannot_be_had_is_said_without_a_trace(capsys: pytest.CaptureFixture[str]) -> None:
    def compare(progress: Progress, record: Record) -> Found:
        raise DataError("no games")

    assert run_comparison(compare) == 2
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "no games\n")


def test_both_comparers_end_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert alfworld.main(["--own", "1", "--part", "3/2"]) == 2
    assert "--part '3/2'" in capsys.readouterr().err
    assert webshop.main([str(tmp_path), str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_speeds() -> None:
    told = {"own_steps_per_s": 20.0, "reference_steps_per_s": 5.0, "speedup": 4.0}
    assert speeds(10, 0.5, 2.0) == told
    assert speeds(0, 0.0, 0.0)["speedup"] is None
