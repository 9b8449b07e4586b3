"""`t2po scale RUN envs=N inference=N learners=N`: asks a running training for other numbers of actors.

Owns: reading the arguments, how long an answer may take. Called by the CLI. Must not know: how a run scales.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from controller.control import ask
from controller.run_folder import RunFolder, is_running
from controller.run_size import ScaleError
from controller.scale_desk import size_of
from controller.scaling import DRAIN_S


def scale(run: Path, arguments: Sequence[str]) -> str:
    """What the run did. ScaleError for what is no size, ControlError for what the run refuses or does not answer."""
    sizes: dict[str, int] = {}
    for argument in arguments:
        name, _, value = argument.partition("=")
        if not value.lstrip("-").isdecimal():
            raise ScaleError(f"{argument!r}: is written PART=N, for example envs=4")
        if name in sizes:
            raise ScaleError(f"{argument!r}: {name} is given twice")
        sizes[name] = int(value)
    size_of(dict(sizes))
    start_s = RunFolder.read(run).config().inference.start_timeout_s
    return ask(run, dict(sizes), 2 * start_s + 2 * DRAIN_S, partial(is_running, run))
