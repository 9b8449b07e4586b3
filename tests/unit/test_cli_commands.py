"""The command line: what it prints, its exit codes, and that help stays light."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from controller.cli import main
from controller.config import RunConfig
from controller.metrics import MetricsLog, StepMetrics
from controller.run_folder import RunFolder
from envs.data_folder import DataError
from envs.panel import load_panel

ROOT = Path(__file__).resolve().parents[2]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Makes `t2po status` end in this error."""

    def fail(_: str) -> Path:
        raise error

    monkeypatch.setattr("controller.policy_folder.find_run", fail)


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["config", "alfworld"], ["play", "--help"]])
def test_light_commands_load_no_heavy_package(arguments: list[str]) -> None:
    code = (
        "import sys; from controller.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'ray', 'vllm', 'transformers', 'deepspeed', 'redis'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_config_prints_the_tree_with_changes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "alfworld", "seed=41"]) == 0
    assert "seed = 41" in capsys.readouterr().out


def test_config_errors_are_one_line_each_and_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "alfworld", "seed=-1", "nonsense=2"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 2
    assert all(line.startswith("t2po: command line: ") for line in captured.err.splitlines())


def test_a_broken_pipe_is_silent() -> None:
    command = f"{sys.executable} -m controller.cli config --markdown | head -1"
    done = run(["bash", "-c", command])
    assert (done.stdout, done.stderr) == ("# Configuration\n", "")


@pytest.mark.parametrize(
    ("arguments", "piece"),
    [
        (["train"], "name a recipe"),
        (["config"], "name a recipe"),
        (["train", "no-such-recipe"], "shipped recipes"),
        (["train", "alfworld", "--resume", "runs/x"], "leave the recipe"),
        (["train", "--resume", "no-such-run"], "no such folder"),
        (["eval", "no-such-run"], "no such folder"),
        (["status", "no-such-run"], "no such folder"),
        (["coldstart", "alfworld", "seed=x", "--to", "nowhere"], "seed = 'x'"),
        (["env", "trace", "alfworld", "--panel", "nope", "--episodes", "nope"], "no panel 'nope'"),
        (["env", "trace", "alfworld", "--panel", "seen", "--episodes", "no-such-file"], "no-such-file"),
        (["play", "alfworld", "--task", "no-such-task"], "no task 'no-such-task'"),
        (["data", "get", "alfworld", "--from", "no-such-folder"], "no-such-folder"),
    ],
)
def test_mistakes_are_answered_with_a_line_and_exit_2(
    arguments: list[str],
    piece: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("t2po: ")
    assert piece in error
    assert "Traceback" not in error


def test_arguments_that_do_not_exist_exit_2() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["dance"])
    assert caught.value.code == 2


def test_changes_may_stand_behind_an_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["coldstart", "alfworld", "--to", str(tmp_path / "new"), "seed=x"]) == 2
    assert "seed = 'x'" in capsys.readouterr().err
    for arguments in (["config", "alfworld", "--markdwn"], ["play", "alfworld", "--panel", "seen", "extra"]):
        with pytest.raises(SystemExit):
            main(arguments)
        assert "unrecognized arguments" in capsys.readouterr().err


def test_errors_of_our_own_and_of_files_speak_for_themselves(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, PermissionError(13, "Permission denied", "/some/run"))
    assert main(["status", "x"]) == 2
    assert capsys.readouterr().err == "t2po: /some/run: Permission denied\n"


def test_an_error_from_a_remote_part_is_judged_by_its_cause(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapped = RuntimeError("ray::Actor.run() ... many lines")
    wrapped.cause = DataError("game 3 is damaged: fetch it again")  # type: ignore[attr-defined]
    failing(monkeypatch, wrapped)
    assert main(["status", "x"]) == 2
    assert capsys.readouterr().err == "t2po: game 3 is damaged: fetch it again\n"


def test_a_defect_keeps_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, KeyError("x"))
    with pytest.raises(KeyError):
        main(["status", "x"])


def test_debug_shows_the_trace_of_a_mistake_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T2PO_DEBUG", "1")
    failing(monkeypatch, DataError("damaged"))
    with pytest.raises(DataError):
        main(["status", "x"])


def test_ctrl_c_ends_without_a_trace(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: str) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr("controller.policy_folder.find_run", interrupt)
    assert main(["status", "x"]) == 130
    assert capsys.readouterr().err == "t2po: stopped\n"


def test_status_reads_a_run_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "first"
    folder.mkdir(parents=True)
    assert main(["status", "first"]) == 2
    assert str(folder) in capsys.readouterr().err
    folder.rmdir()
    run = RunFolder.create(RunConfig(steps=4, name="first"), "alfworld")
    assert main(["status", "first"]) == 0
    assert "no step is finished" in capsys.readouterr().out
    log = MetricsLog(run.metrics)
    log.write(StepMetrics(step=1, values={"success": 0.25}))
    log.write(StepMetrics(step=2, values={"success": 0.5, "failed_attempts_EnvTimeout": 2.0}))
    log.close()
    result = {"label": "before", "panel": "unseen", "success": 0.2, "interval": [0.1, 0.3], "won": 2, "played": 10}
    (run.evaluations / "a.json").write_text(json.dumps({**result, "time": 1.0}))
    (run.evaluations / "b.json").write_text("{")
    assert main(["status", "first"]) == 0
    out = capsys.readouterr().out
    assert "before: unseen 20.0% [10.0%, 30.0%] (2/10 tasks)" in out
    assert "step 2/4" in out
    assert "25% → 50%" in out
    assert "dealt with: failed attempts 2 (EnvTimeout 2)" in out
    assert main(["status", "secnd"]) == 2
    assert "newest: first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "piece"),
    [
        ("tti.thnk_cap=9", "command line: tti.thnk_cap = 9: unknown key; did you mean tti.think_cap"),
        ("eval.top_p=2", "command line: eval.top_p = 2"),
        ("model=/some/where", "command line: model = '/some/where': an evaluation measures the policy that the run"),
        ("env.eval_panel=elsewhere", "elsewhere"),
    ],
)
def test_eval_blames_the_command_line_for_its_changes(
    change: str, piece: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    RunFolder.create(RunConfig(name="first"), "alfworld")
    assert main(["eval", "first", change]) == 2
    assert piece in capsys.readouterr().err


def test_trace_prints_one_line_a_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = load_panel("alfworld", "unseen").tasks[0]
    episodes = tmp_path / "episodes.jsonl"
    episodes.write_text(json.dumps({"task": task.id, "actions": ["look", "inventory"]}) + "\n")
    assert main(["env", "trace", "alfworld", "--panel", "unseen", "--episodes", str(episodes)]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert set(rows[0]) == {"task", "step", "observation", "admissible", "reward", "done"}


def test_play_can_be_left(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("look\nq\n"))
    assert main(["play", "alfworld"]) == 0
    assert "You are in the middle of a room" in capsys.readouterr().out
