"""A server whose engine answers nothing says that it failed when it is asked how it is: its supervisor replaces it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from actors.inference import InferenceError, InferenceServer
from actors.settings import InferenceSettings
from actors.silence import Silence
from envs.records import SignalRange


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Frozen:
    """Replies of an engine that was sent SIGSTOP: none, ever."""

    served = 0

    async def reply(self, *_: Any) -> Any:
        await asyncio.Event().wait()

    def stop(self) -> None:
        return


def a_server(clock: Clock) -> InferenceServer:
    server: Any = InferenceServer()
    server._settings = InferenceSettings(request_timeout_s=30.0)
    server._silence = Silence(clock)
    server._engine = SimpleNamespace(errored=False, output_handler=None, shutdown=lambda patience_s: None)
    server._replies = Frozen()
    server._enter("ready")
    found: InferenceServer = server
    return found


def ask(server: InferenceServer, name: str) -> asyncio.Task[Any]:
    return asyncio.create_task(server.generate(name, np.zeros(1, np.int32), 0, SignalRange(), None))  # type: ignore[arg-type]


def test_server_with_a_silent_engine_fails_and_ends_its_requests() -> None:
    async def scene() -> None:
        clock = Clock()
        server = a_server(clock)
        given_up = ask(server, "a")
        await asyncio.sleep(0)
        clock.now = 29.0
        assert (await server.status())["state"] == "ready"
        given_up.cancel()  # the router's patience is over; it asks again
        await asyncio.gather(given_up, return_exceptions=True)
        clock.now = 29.5
        again = ask(server, "b")
        await asyncio.sleep(0)
        clock.now = 31.0
        status = await server.status()
        assert status["state"] == "failed"
        assert status["reason"] == "the engine answered nothing for 31 s, 1 requests wait for it"
        with pytest.raises(InferenceError, match="answered nothing for 31 s"):
            await again

    asyncio.run(asyncio.wait_for(scene(), 60.0))


def test_server_that_nobody_asks_stays_ready() -> None:
    async def scene() -> None:
        clock = Clock()
        server = a_server(clock)
        clock.now = 10_000.0
        assert (await server.status())["state"] == "ready"

    asyncio.run(asyncio.wait_for(scene(), 60.0))
