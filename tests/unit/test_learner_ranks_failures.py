"""The learner's ranks are asked together; when one fails all end, with the cause that came first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from controller import learner_ranks
from controller.deadline import DeadlineError, bounded
from controller.learner_ranks import LearnerRankError, LearnerRanks
from tests.unit.fake_actors import Handle


class Rank:
    """`answers[method]`: what it does instead of answering with its own number."""

    def __init__(self, number: int, log: list[tuple[int, str, tuple[Any, ...]]], **answers: Callable[..., Any]) -> None:
        self.number = number
        self.log = log
        self.answers = answers

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def answer(*arguments: Any) -> Any:
            self.log.append((self.number, method, arguments))
            return self.answers.get(method, lambda *_: self.number)(*arguments)

        return answer


class Scene:
    """Ranks; `answers[rank]` as for `Rank`."""

    def __init__(self, *answers: dict[str, Callable[..., Any]]) -> None:
        self.log: list[tuple[int, str, tuple[Any, ...]]] = []
        self.handles = [Handle(Rank(number, self.log, **own)) for number, own in enumerate(answers)]
        self.put: list[Any] = []
        self.ranks = LearnerRanks(self.handles, put=self._put, kill=self._kill)

    def _put(self, value: Any) -> str:
        self.put.append(value)
        return "reference"

    def _kill(self, handle: Handle) -> None:
        handle.killed = True

    @property
    def killed(self) -> list[bool]:
        return [handle.killed for handle in self.handles]


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def raises(error: Exception) -> Callable[..., Any]:
    def answer(*_: Any) -> Any:
        raise error

    return answer


async def forever(*_: Any) -> None:
    await asyncio.sleep(3600)


def test_ranks_are_given_the_groups_once_and_rank_0_answers() -> None:
    scene = Scene({}, {}, {})
    groups = ["group"]
    assert run(scene.ranks.train_step.remote(groups, 7)) == 0
    assert scene.put == [groups]
    assert sorted(scene.log) == [(rank, "train_step", ("reference", 7)) for rank in range(3)]


def test_ranks_meet_where_rank_0_opened_a_port() -> None:
    scene = Scene({"host": lambda: "10.0.0.1", "open_rendezvous": lambda address: 4711}, {"host": lambda: "10.0.0.1"})
    run(scene.ranks.start(5.0))
    assert [entry[1:] for entry in scene.log if entry[1] == "start"] == [("start", ("127.0.0.1", 4711))] * 2
    apart = Scene({"host": lambda: "10.0.0.1", "open_rendezvous": lambda address: 4711}, {"host": lambda: "10.0.0.2"})
    run(apart.ranks.start(5.0))
    assert (0, "open_rendezvous", ("10.0.0.1",)) in apart.log
    assert (1, "start", ("10.0.0.1", 4711)) in apart.log


def test_ranks_that_wait_for_a_dead_one_are_ended_with_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner_ranks, "GRACE_S", 0.05)
    scene = Scene({"train_step": forever}, {"train_step": raises(ConnectionError("the actor died"))})
    with pytest.raises(LearnerRankError, match=r"rank 1 of 2, train_step: ConnectionError: the actor died"):
        run(asyncio.wait_for(scene.ranks.train_step.remote([], 0), 5))
    assert scene.killed == [True, True]


def test_ranks_name_the_death_and_not_what_it_did_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other rank's lost connection is often reported first."""
    monkeypatch.setattr(learner_ranks, "GRACE_S", 1.0)

    async def dies_later(*_: Any) -> None:
        await asyncio.sleep(0.05)
        raise ConnectionError("the actor died")

    lost = raises(RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer [127.0.0.1]:1234"))
    scene = Scene({"save": lost}, {"save": lost}, {"save": dies_later})
    with pytest.raises(LearnerRankError, match="rank 2 of 3, save: ConnectionError: the actor died"):
        run(scene.ranks.save.remote("folder"))
    scene = Scene({"save": lost}, {"save": raises(OSError("No space left on device"))})
    with pytest.raises(LearnerRankError, match="rank 1 of 2, save: OSError: No space left"):
        run(scene.ranks.save.remote("folder"))


def test_ranks_that_never_answer_meet_the_callers_deadline() -> None:
    scene = Scene({"load": forever}, {"load": forever})
    with pytest.raises(DeadlineError, match="learner: loading"):
        run(bounded(scene.ranks.load.remote("folder"), 0.05, "learner: loading"))
    stuck = Scene({"host": forever}, {})
    with pytest.raises(DeadlineError, match="its ranks' processes"):
        run(stuck.ranks.start(0.05))
