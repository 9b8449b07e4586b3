"""Playing for a cold start: the policy's trajectories on training tasks, each in a file as soon as it is there.

Owns: which trajectories are asked for, and their file. Called by the cold start. Must not know: which of them are kept
(`controller.attempts`), training.

After a kill only what is not in the file is played. Seeds follow from the run's seed, the task and the sibling, so it
does not matter when a trajectory is played.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from actors.rollout import TrajectorySpec
from controller.attempts import Attempt, AttemptTurn, attempt_of
from controller.config import RunConfig
from controller.durable_files import JsonLines, read_json_lines
from controller.evaluate import side_by_side
from controller.play_session import play_session
from controller.player import Player
from controller.task_order import TaskOrder
from envs.panel import load_panel

REPORTS = 10
"""How often the collection says how far it is."""


def collect_attempts(config: RunConfig, policy: Path, file: Path, say: Callable[[str], None]) -> list[Attempt]:
    """All `coldstart.num_trajectories` of them, in the order asked for; `file` is taken up and added to."""
    asked = range(config.coldstart.num_trajectories)
    known = read_attempts(file)
    missing = [number for number in asked if number not in known]
    if known:
        say(f"cold start: {len(known)} of {len(asked)} trajectories were played before")
    if missing:
        lines = JsonLines(file)

        async def play(player: Player) -> None:
            await _play(player, config, missing, known, lines, say)

        try:
            play_session(config, policy, play, say, folder=file.parent)
        finally:
            lines.close()
    return [known[number] for number in asked]


async def _play(
    player: Player,
    config: RunConfig,
    missing: list[int],
    known: dict[int, Attempt],
    lines: JsonLines,
    say: Callable[[str], None],
) -> None:
    """Plays what is missing, as many side by side as the engines can use, into `known` and the file."""
    order = TaskOrder(load_panel(config.env.name, config.env.train_panel).tasks, config.seed)
    live = side_by_side(config)
    total, least = config.coldstart.num_trajectories, config.coldstart.min_score
    report_every = max(1, total // REPORTS)

    async def one(spec: TrajectorySpec, number: int) -> None:
        async with live:
            trajectory = await player.play(spec)
        player.forget((trajectory,))
        attempt = attempt_of(trajectory, number, least)
        lines.append(as_json(attempt))
        known[number] = attempt
        if len(known) % report_every == 0 or len(known) == total:
            good = sum(bool(attempt.turns) for attempt in known.values())
            say(f"cold start: played {len(known)}/{total} trajectories, {good} with a score above {least:g}")

    specs = [_spec(order, number, config.coldstart.samples_per_task) for number in missing]
    async with asyncio.TaskGroup() as group:
        for spec, number in zip(specs, missing, strict=True):
            group.create_task(one(spec, number))


def _spec(order: TaskOrder, number: int, samples_per_task: int) -> TrajectorySpec:
    index, sibling = divmod(number, samples_per_task)
    task, visit = order.task(index)
    return TrajectorySpec(
        run_id="coldstart",
        group_id=f"coldstart-t{index}",
        group_index=-1,
        task=task,
        sibling=sibling,
        attempt=0,
        sampling="train",
        visit=visit,
    )


def read_attempts(file: Path) -> dict[int, Attempt]:
    """By number. A half-written last line, as a kill leaves it, is left out."""
    return {row["number"]: _of_json(row) for row in read_json_lines(file)}


def as_json(attempt: Attempt) -> dict[str, Any]:
    """One line of the file: token ids as numbers, forced tokens by their places."""
    return {
        "number": attempt.number,
        "task": attempt.task_id,
        "score": attempt.score,
        "turns": [
            {
                "prompt": turn.prompt_ids,
                "reply": turn.reply_ids,
                "forced": np.flatnonzero(turn.forced),
                "action": turn.action,
                "valid": turn.valid,
            }
            for turn in attempt.turns
        ],
    }


def _of_json(row: dict[str, Any]) -> Attempt:
    return Attempt(
        number=row["number"],
        task_id=row["task"],
        score=row["score"],
        turns=tuple(_turn(turn) for turn in row["turns"]),
    )


def _turn(row: dict[str, Any]) -> AttemptTurn:
    reply = np.array(row["reply"], dtype=np.int32)
    forced = np.zeros(len(reply), dtype=np.bool_)
    forced[np.array(row["forced"], dtype=np.int64)] = True
    return AttemptTurn(
        prompt_ids=np.array(row["prompt"], dtype=np.int32),
        reply_ids=reply,
        forced=forced,
        action=row["action"],
        valid=row["valid"],
    )
