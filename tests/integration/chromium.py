"""A headless Chromium for tests, driven by the Chrome DevTools protocol over its own WebSocket.

Owns: the browser's process and one page in it. Called by the tests of the report. Every wait has a deadline; the
process that was started is ended, and no other.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-port=0",
)  # fmt: skip
START_S = 120.0
ANSWER_S = 60.0
POLL_S = 0.05

needs_chromium = pytest.mark.skipif(BROWSER is None, reason="no Chromium here: apt-get install chromium")


class Page:
    """One page. `problems`: what the browser's console had to complain about."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self.problems: list[str] = []

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol and its result."""
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        async with asyncio.timeout(ANSWER_S):
            while True:
                said = await self._socket.receive_json()
                if said.get("id") == self._number:
                    if "error" in said:
                        raise RuntimeError(f"{method}: {said['error']}")
                    return dict(said["result"])
                self._listen(said)

    def _listen(self, said: dict[str, Any]) -> None:
        name, told = said.get("method"), said.get("params", {})
        if name == "Runtime.exceptionThrown" or (
            name == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert")
        ):
            self.problems.append(json.dumps(told))
        if name == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.problems.append(json.dumps(told))

    async def open(self, url: str, width: int = 1200, height: int = 900, *, dark: bool = False) -> None:
        """Goes to a page and waits until it is drawn."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")
        await self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )
        await self.resize(width, height)
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete' && document.querySelector('#foot').textContent !== ''")

    async def resize(self, width: int, height: int = 900) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    async def value(self, expression: str) -> Any:
        """What an expression gives in the page."""
        found = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    async def until(self, expression: str) -> None:
        """Waits until an expression is true."""
        async with asyncio.timeout(ANSWER_S):
            while not await self.value(expression):
                await asyncio.sleep(POLL_S)


@asynccontextmanager
async def browse(profile: Path) -> AsyncIterator[Page]:
    """A browser with an empty profile at `profile`, for as long as the block runs."""
    assert BROWSER is not None
    log = (profile.parent / f"{profile.name}.log").open("w+b")
    process = subprocess.Popen(
        [BROWSER, *FLAGS, f"--user-data-dir={profile}", "about:blank"], stdout=log, stderr=log, start_new_session=True
    )
    try:
        address = await _address(process, profile)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://{address}/json") as answer:
                target = next(one for one in await answer.json() if one["type"] == "page")
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                yield Page(socket)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=20)
        log.close()


async def _address(process: subprocess.Popen[bytes], profile: Path) -> str:
    """Host and port of the protocol, which the browser writes into its profile."""
    file = profile / "DevToolsActivePort"
    async with asyncio.timeout(START_S):
        while not (file.is_file() and re.match(r"\d+\n", file.read_text())):
            if process.poll() is not None:
                pytest.fail(f"{BROWSER} ended with {process.returncode}")
            await asyncio.sleep(POLL_S)
    return f"127.0.0.1:{file.read_text().splitlines()[0]}"
