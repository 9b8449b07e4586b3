"""Asking a run that is going on for something: a request in its folder, an answer beside it.

Owns: the files of `control/`. Called by the CLI, which asks, and by `controller.scale_desk`, which answers. Must not
know: what is asked for.

Files, because a run folder is what both sides have: no port, no token, and whoever may write to the folder may ask. A
request is there whole or not at all, is taken once, and one that a run did not live to answer is removed by its next
life.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.durable_files import RunFolderError, write_whole

FOLDER = "control"
TAKEN_WITHIN_S = 30.0
"""A run that goes on looks once a second."""
LOOK_EVERY_S = 0.2


class ControlError(RuntimeError):
    """The request was refused, or nobody took it; the message says why."""


@dataclass(frozen=True, slots=True)
class Request:
    """`content` as it was asked. `id` names the answer."""

    id: str
    content: dict[str, Any]


class Control:
    """The run's side."""

    def __init__(self, run: Path) -> None:
        self._folder = run / FOLDER
        try:
            self._folder.mkdir(exist_ok=True)
            for left in self._folder.glob("*.json"):
                left.unlink()
        except OSError as error:
            raise RunFolderError.of(self._folder, error, "prepare for requests") from error

    def take(self) -> list[Request]:
        """The requests that came since, oldest first. One that cannot be read is answered with that."""
        found = []
        for path in sorted(self._folder.glob("*.request.json"), key=lambda path: path.stat().st_mtime):
            name = path.name.removesuffix(".request.json")
            try:
                content = json.loads(path.read_bytes())
                if not isinstance(content, dict):
                    raise ValueError("not a JSON object")
                found.append(Request(name, content))
            except (OSError, ValueError) as error:
                self.answer(name, f"cannot be read: {error}", refused=True)
            path.unlink(missing_ok=True)
        return found

    def answer(self, name: str, text: str, *, refused: bool = False) -> None:
        write_whole(self._folder / f"{name}.answer.json", json.dumps({"text": text, "refused": refused}).encode())


def ask(run: Path, content: dict[str, Any], timeout_s: float, alive: Callable[[], bool]) -> str:
    """The run's answer. ControlError when it refuses, when no process of it takes the request, or at the deadline."""
    name = secrets.token_hex(6)
    request = run / FOLDER / f"{name}.request.json"
    if not alive() or not request.parent.is_dir():
        raise ControlError(f"{run}: the run is not going on; start it with: t2po train --resume {run}")
    write_whole(request, json.dumps(content).encode())
    answer = run / FOLDER / f"{name}.answer.json"
    began = time.monotonic()
    while not answer.exists():
        waited = time.monotonic() - began
        if not alive():
            raise ControlError(f"{run}: the run ended before it answered; its log says why: {run / 'run.log'}")
        if request.exists() and waited > TAKEN_WITHIN_S:
            request.unlink(missing_ok=True)
            raise ControlError(f"{run}: the run did not take the request within {TAKEN_WITHIN_S:g} s; is it frozen?")
        if waited > timeout_s:
            raise ControlError(f"{run}: no answer within {timeout_s:g} s; what it does now: t2po status {run}")
        time.sleep(LOOK_EVERY_S)
    told = json.loads(answer.read_bytes())
    answer.unlink(missing_ok=True)
    if told["refused"]:
        raise ControlError(str(told["text"]))
    return str(told["text"])
