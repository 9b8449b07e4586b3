"""`t2po env trace`: options that would do nothing are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.cli import main


@pytest.mark.parametrize("option", ["--goal-seed 0", "--goal-seed 7", "--human-goals", "--observation text_rich"])
def test_options_of_the_goal_list_are_refused_with_a_panel(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    episodes = tmp_path / "episodes.jsonl"
    episodes.write_text("")
    command = ["env", "trace", "webshop", "--panel", "shop-unseen", "--episodes", str(episodes), *option.split()]
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{option.split()[0]} with --panel shop-unseen" in line and "leave it out" in line
