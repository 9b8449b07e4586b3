"""`t2po report RUN [RUN ...]`: the page as a file, or served.

Owns: what the command's options mean. Called by the CLI. Must not know: how a report is made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from controller.durable_files import write_whole
from controller.report.collection import collect
from controller.report.page import page_of
from controller.report.run_files import ReportError, read_run
from controller.report.server import ReportServer, serve

FILE = "report.html"


def write_report(paths: Sequence[Path], to: Path | None, num_steps: int | None) -> str:
    """Writes the page; returns the line that says where. By default it lies in the folder of the run, that of several
    runs in the folder that the command was given in."""
    target = to or (paths[0] / FILE if len(paths) == 1 else Path(FILE))
    if target.is_dir():
        raise ReportError(f"--to {target}: is a folder; name a file in it, such as {target / FILE}")
    if not target.absolute().parent.is_dir():
        raise ReportError(f"--to {target}: {target.absolute().parent} is no folder; make it first")
    data = page_of(collect(paths, num_steps), title_of(paths))
    write_whole(target, data)
    return f"{target} ({len(data) / 1e6:.1f} MB)"


def serve_report(paths: Sequence[Path], port: int, num_steps: int | None, say: Callable[[str], None]) -> int:
    """Serves the page until Ctrl-C; returns the exit code."""
    for path in paths:
        read_run(path)  # what is no run is named now, not to whoever opens the page
    asyncio.run(_serve(paths, port, num_steps, say))
    return 0


async def _serve(paths: Sequence[Path], port: int, num_steps: int | None, say: Callable[[str], None]) -> None:
    await serve(ReportServer(paths, title_of(paths), partial(collect, list(paths), num_steps)), port, say)


def title_of(paths: Sequence[Path]) -> str:
    """The page's title."""
    names = [path.absolute().name for path in paths]
    return f"{names[0]} · t2po" if len(names) == 1 else f"{names[0]} and {len(names) - 1} more · t2po"
