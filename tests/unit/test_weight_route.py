"""Which way weights take, the NCCL channel's life, and what becomes of weights that arrive changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from controller.replacements import PartLost
from controller.weight_route import WeightChannel, WeightMismatch, WeightRouteError, check_arrival, choose_route

ENGINES = {"inference-0": "gpu-b", "inference-1": "gpu-c"}


@pytest.mark.parametrize(
    ("wanted", "learner", "engines", "route"),
    [
        ("auto", "gpu-a", ENGINES, "nccl"),
        ("nccl", "gpu-a", ENGINES, "nccl"),
        ("object_store", "gpu-a", ENGINES, "object_store"),
        ("auto", "", ENGINES, "object_store"),
        ("auto", "gpu-a", {**ENGINES, "inference-1": ""}, "object_store"),
        ("auto", "gpu-b", ENGINES, "object_store"),
        ("auto", "", {"inference-0": ""}, "object_store"),
    ],
)
def test_nccl_where_everybody_has_a_gpu_of_its_own(
    wanted: str, learner: str, engines: dict[str, str], route: str
) -> None:
    assert choose_route(wanted, learner, engines) == route


@pytest.mark.parametrize(
    ("learner", "engines", "cause"),
    [("", ENGINES, "learner has no GPU"), ("gpu-b", ENGINES, "learner, inference-0 share a GPU")],
)
def test_nccl_that_cannot_be_had_is_refused(learner: str, engines: dict[str, str], cause: str) -> None:
    with pytest.raises(
        WeightRouteError, match=f'inference.weight_transfer = "nccl": {cause}.*"auto" or "object_store"'
    ):
        choose_route("nccl", learner, engines)


def test_weights_that_arrive_changed_end_the_run_with_engine_and_tensor() -> None:
    sent = {"embed": 1, "head": 2}
    good, unchecked = SimpleNamespace(checksums=dict(sent)), SimpleNamespace(checksums=None)
    check_arrival(3, sent, {"inference-0": good, "inference-1": unchecked})
    bad = SimpleNamespace(checksums={"embed": 1, "head": 9})
    with pytest.raises(WeightMismatch, match="inference-1 .* version 3 .*1 have other bytes, such as head; resume"):
        check_arrival(3, sent, {"inference-0": good, "inference-1": bad})


def call(answer: Callable[..., Any]) -> Any:
    async def remote(*arguments: Any) -> Any:
        return answer(*arguments)

    return SimpleNamespace(remote=remote)


class Part:
    """The learner or an engine, as the channel sees it; writes down what it was asked."""

    def __init__(self, name: str, log: list[tuple[Any, ...]]) -> None:
        self.name = name
        self.log = log
        self.open_channel = call(lambda *place: self.note("open", *place[2:]))
        self.weight_shapes = call(lambda: (["w"], ["float32"], [[2]]))
        self.send_weights = call(lambda: self.note("send"))
        self.receive_weights = call(lambda *meta: self.note("receive", *meta) or f"report of {name}")

    def note(self, *what: Any) -> None:
        self.log.append((self.name, *what))


def test_channel_is_opened_once_and_again_when_an_engine_was_replaced() -> None:
    log: list[tuple[Any, ...]] = []
    learner, first, second, successor = (Part(name, log) for name in ("learner", "a", "b", "c"))
    channel = WeightChannel(learner, 5.0)
    reports = asyncio.run(channel.publish(1, {"inference-0": first, "inference-1": second}, True))
    assert reports == {"inference-0": "report of a", "inference-1": "report of b"}
    assert log[:3] == [("learner", "open", 3), ("a", "open", 1, 3), ("b", "open", 2, 3)]
    assert log[3:] == [
        ("learner", "send"),
        ("a", "receive", 1, ["w"], ["float32"], [[2]], True),
        ("b", "receive", 1, ["w"], ["float32"], [[2]], True),
    ]
    log.clear()
    asyncio.run(channel.publish(2, {"inference-0": first, "inference-1": second}, False))
    assert [entry[1] for entry in log] == ["send", "receive", "receive"]
    log.clear()
    asyncio.run(channel.publish(3, {"inference-0": first, "inference-1": successor}, False))
    assert [entry[:2] for entry in log[:3]] == [("learner", "open"), ("a", "open"), ("c", "open")]


def test_broadcast_that_breaks_ends_the_run_with_its_cause() -> None:
    log: list[tuple[Any, ...]] = []
    learner, engine = Part("learner", log), Part("a", log)

    def broken(*meta: Any) -> None:
        raise RuntimeError("unhandled system error")

    engine.receive_weights = call(broken)
    with pytest.raises(PartLost, match="weights of version 4 over NCCL: RuntimeError: unhandled system error; resume"):
        asyncio.run(WeightChannel(learner, 5.0).publish(4, {"inference-0": engine}, False))
