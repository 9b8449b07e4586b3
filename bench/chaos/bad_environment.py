"""ALFWorld that misbehaves when it is told to: raises, loops for ever in a step, or returns 10 MB.

Owns: that. A chaos run plays it by `env.name`, with its orders in `env.options` (`orders` writes them). Must not know:
who counts the damage.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from envs.alfworld.env import AlfworldEnv
from envs.alfworld.environment import Alfworld
from envs.settings import EnvSettings

NAME = f"{__name__}:BadAlfworld"
LARGE = 10 * 2**20


class EnvironmentOutOfOrder(RuntimeError):
    """Raised on purpose."""


def orders(do: str, task_id: str, turn: int, times: int, marks: Path) -> str:
    """For `env.options`: in turn `turn` of task `task_id`, the first `times` times that any process gets there.

    `marks`: a folder, which holds one file for each time that it was done.
    """
    marks.mkdir(parents=True, exist_ok=True)
    return json.dumps({"do": do, "task": task_id, "turn": turn, "times": times, "marks": str(marks)})


class BadEnv(AlfworldEnv):
    """Its orders are in `settings.options`."""

    def __init__(self, settings: EnvSettings, data_dir: Path | None) -> None:
        super().__init__(settings, data_dir)
        self._orders: dict[str, Any] = json.loads(settings.options)
        self._played = ""
        self._turn = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        assert options is not None
        task = replace(options["task"], env="alfworld")  # ALFWorld plays no task of another environment
        self._played, self._turn = task.id, 0
        return super().reset(seed=seed, options={"task": task})

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        turn, self._turn = self._turn, self._turn + 1
        answer = super().step(action)
        if self._played != self._orders["task"] or turn != self._orders["turn"] or not self._is_due():
            return answer
        if self._orders["do"] == "raises":
            raise EnvironmentOutOfOrder("as the chaos harness ordered")
        if self._orders["do"] == "loops":
            while True:
                pass
        return ("x" * (LARGE // 2) + " word" * (LARGE // 10), *answer[1:])

    def _is_due(self) -> bool:
        """Each time is taken by whoever creates its file, in whichever process."""
        for number in range(self._orders["times"]):
            try:
                (Path(self._orders["marks"]) / str(number)).open("x").close()
                return True
            except FileExistsError:
                continue
        return False


class BadAlfworld(Alfworld):
    """The panels and prompts of ALFWorld."""

    def make(self, settings: EnvSettings, data_dir: Path | None = None) -> AlfworldEnv:
        return BadEnv(settings, data_dir)
