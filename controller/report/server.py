"""`t2po report --serve`: the page on loopback, made again when the runs' files change.

Owns: the HTTP server and when a report is made again. Called by `controller.report.command`. Must not know: what a
report holds. The page asks for `data.json` with the ETag that it has, and gets nothing while nothing has changed.
"""

from __future__ import annotations

import asyncio
import hashlib
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

from controller.report.page import page_of, safe_json
from controller.report.run_files import ReportError, marks_of

ADDRESS = "127.0.0.1"
NAMES = (ADDRESS, "localhost")
"""Hosts that a request may be for: any other is a name that someone pointed at this machine to read it."""
GRACE_S = 2.0
"""How long requests under way have when the server ends."""

Collect = Callable[[], dict[str, Any]]


class ReportServer:
    """Serves the report of some runs. `collect` makes its tree."""

    def __init__(self, paths: Sequence[Path], title: str, collect: Collect) -> None:
        self._paths = [path.absolute() for path in paths]
        self._title = title
        self._collect = collect
        self._tag = ""
        self._tree: dict[str, Any] = {}
        self._making = asyncio.Lock()

    def application(self) -> web.Application:
        """`/` the page, `/data.json` its data."""
        application = web.Application(middlewares=[_own_names_only])
        application.router.add_get("/", self._page)
        application.router.add_get("/data.json", self._data)
        return application

    async def _page(self, request: web.Request) -> web.Response:
        tree, tag = await self._present()
        body = await asyncio.to_thread(page_of, {**tree, "tag": tag}, self._title, live=True)
        return web.Response(body=body, content_type="text/html", charset="utf-8", headers={"Cache-Control": "no-store"})

    async def _data(self, request: web.Request) -> web.Response:
        tree, tag = await self._present()
        headers = {"ETag": f'"{tag}"', "Cache-Control": "no-store"}
        if request.headers.get("If-None-Match") == f'"{tag}"':
            return web.Response(status=304, headers=headers)
        text = await asyncio.to_thread(safe_json, {**tree, "tag": tag})
        body = text.encode("utf-8", errors="replace")
        return web.Response(body=body, content_type="application/json", charset="utf-8", headers=headers)

    async def _present(self) -> tuple[dict[str, Any], str]:
        """The tree of the files as they are now, and its tag."""
        async with self._making:  # several readers wait for one report
            tag = await asyncio.to_thread(self._state)
            if tag != self._tag:
                self._tree = await asyncio.to_thread(self._collect)
                self._tag = tag
            return self._tree, self._tag

    def _state(self) -> str:
        marks = [marks_of(path) for path in self._paths]
        return hashlib.blake2b(repr(marks).encode(), digest_size=12).hexdigest()


async def serve(server: ReportServer, port: int, say: Callable[[str], None]) -> None:
    """Serves until Ctrl-C or SIGTERM. Port 0 is a free one. Raises ReportError when the port is taken."""
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    runner = web.AppRunner(server.application(), shutdown_timeout=GRACE_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, ADDRESS, port)
        try:
            await site.start()
        except OSError as error:
            raise ReportError(
                f"--port {port}: cannot serve on {ADDRESS}:{port} ({error.strerror or error}); end the program that "
                "uses the port, name another one, or 0 for one that is free"
            ) from error
        say(f"http://{ADDRESS}:{runner.addresses[0][1]}/ (Ctrl-C ends it)")
        await ended.wait()
    finally:
        await runner.cleanup()


@web.middleware
async def _own_names_only(request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
    if (request.url.host or "") not in NAMES:
        raise web.HTTPForbidden(text=f"this server answers for {' and '.join(NAMES)} alone\n")
    try:
        response: web.StreamResponse = await handler(request)
    except ReportError as error:  # the run's folder was moved or deleted
        raise web.HTTPServiceUnavailable(text=f"{error}\n") from error
    return response
