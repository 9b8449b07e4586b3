"""A request in a run's folder: taken once, answered, refused, or found to have nobody who takes it."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from controller import control as module
from controller.adjustments import adjustments_of
from controller.config import RunConfig
from controller.control import Control, ControlError, ask
from controller.run_size import ScaleError, Size
from controller.scale_command import scale
from controller.scale_desk import ScaleDesk, check_learners


def answered_by(run: Path, answer: str, refused: bool) -> threading.Thread:
    control = Control(run)

    def serve() -> None:
        for _ in range(500):
            for request in control.take():
                control.answer(request.id, f"{answer} {request.content}", refused=refused)
                return
            threading.Event().wait(0.01)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


@pytest.mark.parametrize("refused", [False, True])
def test_control_request_is_answered_or_refused(tmp_path: Path, refused: bool) -> None:
    thread = answered_by(tmp_path, "did", refused)
    if refused:
        with pytest.raises(ControlError, match="did {'envs': 2}"):
            ask(tmp_path, {"envs": 2}, 10.0, lambda: True)
    else:
        assert ask(tmp_path, {"envs": 2}, 10.0, lambda: True) == "did {'envs': 2}"
    thread.join(10)
    assert list((tmp_path / "control").iterdir()) == []


def test_control_request_that_nobody_takes_is_withdrawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TAKEN_WITHIN_S", 0.05)
    with pytest.raises(ControlError, match="is not going on"):
        ask(tmp_path, {}, 10.0, lambda: True)
    control = Control(tmp_path)
    with pytest.raises(ControlError, match="is it frozen"):
        ask(tmp_path, {}, 10.0, lambda: True)
    assert control.take() == []
    with pytest.raises(ControlError, match="is not going on"):
        ask(tmp_path, {}, 10.0, lambda: False)


def test_control_leftovers_of_an_earlier_life_are_not_served(tmp_path: Path) -> None:
    Control(tmp_path)
    (tmp_path / "control" / "old.request.json").write_text("{}")
    control = Control(tmp_path)
    assert control.take() == []
    (tmp_path / "control" / "bad.request.json").write_text("[1")
    assert control.take() == []
    assert json.loads((tmp_path / "control" / "bad.answer.json").read_text())["refused"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["envs=0"], "envs = 0: at least 1"),
        (["actors=2"], "actors = 2: there is no such part"),
        (["envs"], "'envs': is written PART=N"),
        (["envs=1.5"], "'envs=1.5': is written PART=N"),
        (["envs=2", "envs=3"], "envs is given twice"),
    ],
)
def test_scale_command_refuses_what_is_no_size(tmp_path: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(ScaleError, match=message):
        scale(tmp_path, arguments)


class FakeScaling:
    async def to(self, size: Size) -> str:
        if size.envs == 9:
            raise ScaleError("too many")
        if size.inference == 9:
            await asyncio.sleep(60)
        return "env-1 joined"


def desk_answers(run: Path, *contents: dict[str, Any]) -> tuple[list[dict[str, Any]], list[int]]:
    """What the desk says to requests that all come at once, and for which numbers of ranks it asked."""
    learners: list[int] = []

    async def serve() -> list[dict[str, Any]]:
        desk = ScaleDesk(RunConfig(), run, FakeScaling(), lambda: 7, learners.append, lambda text: None)  # type: ignore[arg-type]
        for number, content in enumerate(contents):
            (run / "control" / f"{number}.request.json").write_text(json.dumps(content))
        desk.look()
        await asyncio.sleep(0.1)
        await desk.close()
        return [json.loads((run / "control" / f"{number}.answer.json").read_text()) for number in range(len(contents))]

    return asyncio.run(serve()), learners


def test_scale_desk_serves_refuses_and_remembers(tmp_path: Path) -> None:
    answers, learners = desk_answers(
        tmp_path, {"envs": 2}, {"envs": 9}, {"envs": True}, {"learners": 2}, {"learners": 1}, {"inference": 9}
    )
    assert [answer["refused"] for answer in answers] == [False, True, True, False, False, True]
    assert [answer["text"] for answer in answers[1:3]] == [
        "too many",
        "envs = True: must be a whole number, at least 1",
    ]
    assert "goes on with 2 learner ranks" in answers[3]["text"]
    assert answers[4]["text"] == "nothing to do"
    assert answers[5]["text"] == "the run is ending"
    assert learners == [2]
    assert [(one.step, one.changes) for one in adjustments_of(tmp_path)] == [(7, {"rollout.num_env_actors": 2})]


def test_scale_desk_refuses_more_learners_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    config = RunConfig.model_validate({"learner": {"device": "cpu"}})
    check_learners(2, config)
    with pytest.raises(ScaleError, match="need 3 cores and the machine has 2"):
        check_learners(3, config)
