"""A server that forgets what it confirmed: killed without its last writes, it comes back, and the run goes on."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from controller.generation import group_name, index_of
from controller.inbox import Inbox
from controller.replay_queue import ReplayQueue
from controller.step_groups import StepGroups
from controller.valkey_process import free_port, server_binary
from envs.records import TrajectoryGroup
from tests.unit.test_codec_round_trip import a_group


def group(index: int) -> TrajectoryGroup:
    return dataclasses.replace(a_group(), id=group_name("run", index), index=index)


class SnapshotServer:
    """Somebody else's server: its data is on the disk only when it was told to save."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client: Any = redis.Redis.from_url(self.url)
        self.start()

    def start(self) -> None:
        options = ["--port", str(self.port), "--save", "", "--appendonly", "no", "--dir", str(self.folder)]
        self.process = subprocess.Popen([str(server_binary()), *options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            try:
                self.client.ping()
                return
            except redis.RedisError:
                assert time.monotonic() < deadline, "the server does not come up"
                time.sleep(0.02)

    def kill_and_start(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self.start()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SnapshotServer]:
    server = SnapshotServer(tmp_path)
    yield server
    server.process.kill()
    server.process.wait(10)


@pytest.mark.parametrize("saved", [False, True])
def test_server_that_comes_back_without_confirmed_groups(
    server: SnapshotServer, saved: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Without any data, or with an older state: what is missing is made again, what came back is trained once."""
    asked: list[str] = []
    tasks: list[asyncio.Task[None]] = []

    async def run() -> None:
        inbox = Inbox(ReplayQueue(server.url, "run", 100, 20.0), max_pull=4)

        def damaged(names: list[str]) -> None:
            asked.extend(names)
            tasks.extend(asyncio.create_task(inbox.push(group(index_of(name)))) for name in names)

        async def take(*indices: int) -> list[int]:
            step = StepGroups(indices[0], len(indices), len(indices), lambda group: True, lambda: None)
            groups = await inbox.take(step, 30.0, damaged, lambda: None)
            return [one.index for one in groups]

        try:
            for index in (0, 1, 2):
                await inbox.push(group(index))
            assert await take(0) == [0]
            if saved:
                server.client.save()
            await inbox.committed()
            await inbox.push(group(3))
            await inbox.push(group(4))
            server.kill_and_start()
            began = time.monotonic()
            assert await take(1, 2) == [1, 2], "they were delivered before: nothing is lost"
            assert await take(3, 4) == [3, 4]
            assert time.monotonic() - began < 15
            assert asked == [group_name("run", 3), group_name("run", 4)]
            assert inbox.num_ready == 0
            await asyncio.gather(*tasks)
            await inbox.committed()
            assert await inbox.depth() == 0
        finally:
            inbox.close()

    asyncio.run(run())
    assert ("lost this run's stream" in caplog.text) == (not saved)
