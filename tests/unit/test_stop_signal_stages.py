"""Stopping: the first signal asks, the second cancels."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from controller.stop_signal import Stopped, StopSignal


def test_stop_first_signal_ends_a_wait_with_stopped() -> None:
    async def run() -> None:
        said: list[str] = []
        with StopSignal(said.append) as stop:
            stop.check()
            asyncio.get_running_loop().call_later(0.02, os.kill, os.getpid(), signal.SIGTERM)
            with pytest.raises(Stopped):
                await stop.unless(asyncio.sleep(30))
            assert len(said) == 1
            with pytest.raises(Stopped):
                stop.check()

    asyncio.run(run())


def test_stop_second_signal_cancels_what_goes_on() -> None:
    async def run() -> None:
        with StopSignal(lambda text: None):
            loop = asyncio.get_running_loop()
            for delay in (0.02, 0.06):
                loop.call_later(delay, os.kill, os.getpid(), signal.SIGINT)
            await asyncio.sleep(30)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())


def test_stop_lets_results_and_failures_through() -> None:
    async def give() -> int:
        return 3

    async def fail() -> None:
        raise KeyError("x")

    async def run() -> None:
        with StopSignal(lambda text: None) as stop:
            assert await stop.unless(give()) == 3
            with pytest.raises(KeyError):
                await stop.unless(fail())

    asyncio.run(run())


def test_stop_leaves_the_handlers_as_they_were() -> None:
    async def run() -> None:
        with StopSignal(lambda text: None):
            pass

    before = signal.getsignal(signal.SIGINT)
    asyncio.run(run())
    assert signal.getsignal(signal.SIGINT) is before
