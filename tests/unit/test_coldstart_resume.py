"""A cold start that is killed goes on: what was collected is kept, another configuration is refused, the folder comes
at the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from controller import coldstart, coldstart_command, demonstrations
from controller.cli import main
from controller.coldstart import prepare_policy
from controller.coldstart_command import write_policy
from controller.config import RunConfig, load_config, validate
from controller.demonstrations import collect_demonstrations
from controller.policy_folder import PolicyError
from controller.run_folder import RunFolderError
from controller.stop_signal import Stopped
from tests.unit.test_train_bad_input import policy_folder, word_tokenizer

MARKERS = ("<think>", "</think>", "<action>", "</action>")


class Killed(Exception):
    pass


def small(runs: Path, *changes: str) -> RunConfig:
    return load_config(
        "alfworld", [f"runs_dir={runs}", "coldstart.num_trajectories=6", "coldstart.evaluate=false", *changes]
    )


@pytest.mark.parametrize("name", ["alfworld", "webshop", "search"])
def test_demonstrations_go_on_where_they_were_interrupted(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = validate({"env": {"name": name}, "coldstart": {"num_trajectories": 6}}, "test")
    whole = collect_demonstrations(config)
    file = tmp_path / "demonstrations.jsonl"
    append, left = demonstrations.JsonLines.append, 3

    def killed_after_three(self, record, **options):  # type: ignore[no-untyped-def]
        nonlocal left
        if not left:
            raise Killed
        left -= 1
        append(self, record, **options)

    monkeypatch.setattr(demonstrations.JsonLines, "append", killed_after_three)
    with pytest.raises(Killed):
        collect_demonstrations(config, file)
    monkeypatch.undo()
    with file.open("ab") as end:
        end.write(b'{"turns": [["half a line')
    assert collect_demonstrations(config, file) == whole
    assert len(file.read_bytes().splitlines()) == 6
    assert collect_demonstrations(config, file) == whole


def written(config: RunConfig, base: Path, work: Path, *_: Any) -> dict[str, float]:
    """In the place of the training: a policy folder."""
    policy_folder(work / "policy", word_tokenizer(*MARKERS))
    return {"loss": 0.5}


def test_coldstart_that_was_killed_in_training_goes_on_with_what_it_collected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, said = small(tmp_path), []

    def killed(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(coldstart, "_finetune", killed)
    with pytest.raises(Killed):
        write_policy(config, tmp_path / "mine", said.append)
    assert not (tmp_path / "mine").exists()
    (collected,) = (tmp_path / ".policies").glob("*.unfinished/demonstrations.jsonl")
    before = collected.stat().st_mtime_ns
    seen = []

    def watched(*arguments: Any) -> dict[str, float]:
        seen.append(collected.stat().st_mtime_ns)
        return written(*arguments)

    monkeypatch.setattr(coldstart, "_finetune", watched)
    assert write_policy(config, tmp_path / "mine", said.append) == tmp_path / "mine"
    assert seen == [before], "it was collected again"
    assert json.loads((tmp_path / "mine" / coldstart.PAGE).read_text())["training"] == {"loss": 0.5}
    assert not list(tmp_path.glob("**/*.unfinished"))


def test_coldstart_with_another_configuration_is_refused_while_one_is_unfinished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def killed(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(coldstart, "_finetune", killed)
    with pytest.raises(Killed):
        write_policy(small(tmp_path), tmp_path / "mine", print)
    for changes, piece in [
        (["coldstart.lr=1e-3"], "coldstart.lr was 0.002, is 0.001"),
        (["seed=3"], "seed was 0, is 3"),
        (["coldstart.evaluate=true"], "eval was None"),
    ]:
        with pytest.raises(PolicyError, match=r"remove that folder, or name another --to") as refused:
            write_policy(small(tmp_path, *changes), tmp_path / "mine", print)
        assert piece in str(refused.value) or piece.split(" was")[0] in str(refused.value)
        assert str(tmp_path / "mine.unfinished") in str(refused.value)
    monkeypatch.setattr(coldstart, "_finetune", written)
    write_policy(small(tmp_path, "coldstart.save_every_s=1"), tmp_path / "mine", print)  # which decides nothing


def test_coldstart_is_made_by_one_process_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small(tmp_path)

    def meanwhile(*arguments: Any) -> dict[str, float]:
        with pytest.raises(RunFolderError, match=r"writes to this cold start; wait for it or end it"):
            prepare_policy(config, tmp_path / "other", print)
        return written(*arguments)

    monkeypatch.setattr(coldstart, "_finetune", meanwhile)
    prepare_policy(config, tmp_path / "one", print)
    assert prepare_policy(config, tmp_path / "other", print).is_dir()


def test_coldstart_that_is_stopped_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object) -> None:
        raise Stopped

    monkeypatch.setattr(coldstart_command, "prepare_policy", stopped)
    changes = [f"runs_dir={tmp_path}", "coldstart.evaluate=false"]
    assert main(["coldstart", "alfworld", "--to", str(tmp_path / "mine"), *changes]) == 130
    assert "the same command goes on from here" in capsys.readouterr().out


def test_coldstart_of_a_policy_that_never_succeeds_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from controller.attempts import Attempt

    folder = policy_folder(tmp_path / "policy", word_tokenizer(*MARKERS))
    config = small(tmp_path, f"model={folder}", "coldstart.source=policy")
    nothing = [Attempt(number=number, task_id="t", score=0.0, turns=()) for number in range(6)]
    monkeypatch.setattr(coldstart, "collect_attempts", lambda *_: nothing)
    said: list[str] = []
    with pytest.raises(PolicyError, match=r"none of 6 trajectories has a score above .* begin from a better policy"):
        prepare_policy(config, tmp_path / "new", said.append)
    assert any("rejected: 6 score too low" in line for line in said)


def test_coldstart_in_a_run_does_not_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run itself does, before its first step."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("nothing was to be played")

    monkeypatch.setattr(coldstart_command, "play_session", never)
    monkeypatch.setattr(coldstart, "_finetune", written)
    prepare_policy(small(tmp_path, "coldstart.evaluate=true"), tmp_path / "policy", print)


def test_coldstart_measures_before_and_after_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured before a kill is not measured again; the results lie in the folder at the end."""
    from controller.eval_result import summarise
    from tests.unit.test_attempts_selection import trajectory

    played: list[str] = []

    def session(config, policy, work, say, folder=None):  # type: ignore[no-untyped-def]
        played.append(policy.name)
        return summarise(
            [trajectory(1.0)], panel=config.env.eval_panel, panel_hash="h", version=0, settings={}, duration_s=1.0
        )

    start = policy_folder(tmp_path / "start", word_tokenizer(*MARKERS))
    config = small(tmp_path, f"model={start}", "coldstart.source=policy", "coldstart.evaluate=true")
    monkeypatch.setattr(coldstart_command, "play_session", session)

    def killed(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(coldstart, "collect_attempts", killed)
    with pytest.raises(Killed):
        write_policy(config, tmp_path / "mine", print)
    assert played == ["start"]
    monkeypatch.setattr(coldstart, "_policy_pairs", lambda *_: ([], [], {"selection": {"kept": 3}}))
    monkeypatch.setattr(coldstart, "_finetune", written)
    said: list[str] = []
    write_policy(config, tmp_path / "mine", said.append)
    assert played == ["start", "policy"]
    names = sorted(path.name for path in (tmp_path / "mine" / "evaluations").iterdir())
    assert names == [f"{config.env.eval_panel}-v000000-{label}.json" for label in ("after", "before")]
    assert said[-1].startswith(f"success on {config.env.eval_panel} (1 tasks): 100.0% [20.7%, 100.0%] before, 100.0%")
