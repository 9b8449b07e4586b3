"""The evaluations of a training run: before, during and after, with the weights that are live.

Owns: when one is due, what is played, said and filed, and the rating of the checkpoint. Called by `controller.train`.
Must not know: steps, checkpoints' files, the queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from controller.cluster import Cluster
from controller.config import RunConfig
from controller.deadline import noted
from controller.eval_result import comparison, lines_of, was_evaluated, write_result
from controller.evaluate import evaluate
from controller.player import Player
from envs.panel import Panel


class RunEvaluations:
    """Of one run on its evaluation panel."""

    def __init__(
        self,
        config: RunConfig,
        run_id: str,
        panel: Panel,
        folder: Path,
        cluster: Cluster,
        player: Player,
        *,
        rate: Callable[[int, float], None],
        say: Callable[[str, str], None],
        note: Callable[[str], None],
    ) -> None:
        """`folder`: where results are filed. `rate` is told the success after how many steps."""
        self._config = config
        self._run_id = run_id
        self._panel = panel
        self._folder = folder
        self._cluster = cluster
        self._player = player
        self._rate = rate
        self._say = say
        self._note = note

    @property
    def first_is_due(self) -> bool:
        return self._config.eval.before and not was_evaluated(self._folder, self._panel.name, "before")

    def is_due(self, done: int) -> bool:
        """After `done` steps: between the first and the last one, which are always done."""
        every = self._config.eval.every_steps
        return bool(every) and done % every == 0 and done < self._config.steps

    async def play(self, label: str, done: int, *, watched: bool = False) -> None:
        """Plays the panel after `done` steps. `watched`: somebody supervises the cluster already."""
        panel = self._panel
        tasks = panel.tasks[: self._config.eval.num_tasks or None]
        self._say("run", f"evaluating on {len(tasks)} tasks of {panel.name}")
        playing = evaluate(self._player, tasks, self._config, panel, version=done, run_id=self._run_id)
        with noted(f"the evaluation on {panel.name}"):
            result = await (playing if watched else self._cluster.guarded(playing))
        for line in lines_of(result, f"{label} (step {done})"):
            self._note(line)
        await asyncio.to_thread(write_result, result, self._folder, label)
        await asyncio.to_thread(self._rate, done, result.success)
        self._say("run", "training")

    def comparison(self) -> str:
        """Before and after, in one line."""
        return comparison(self._folder, self._panel.name)
