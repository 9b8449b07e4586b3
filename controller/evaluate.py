"""Evaluation: plays every task of a panel once and says how often the policy succeeds, and how sure that is.

Owns: what is played, with which settings. Called by `controller.train` (before, after
and during a run) and by the CLI (`t2po eval RUN --panel P`). Must not know: training.

The bare policy is measured: TTI and TDS are off unless `eval.interventions` is set. Sampling seeds follow
from the run's seed and the task, so two evaluations of the same weights differ only by what the engine
rounds differently, and evaluations of different weights share their random numbers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path

from actors.rollout import TrajectorySpec
from controller.config import ConfigError, RunConfig, merge, parse_overrides, validate
from controller.eval_result import (
    EvalResult,
    eval_settings,
    lines_of,
    settings_tag,
    summarise,
    write_result,
)
from controller.play_session import play_session
from controller.player import Player
from controller.policy_folder import check_policy, newest_policy
from controller.run_folder import RunFolder
from controller.stop_signal import STOPPED_BY_SIGNAL, Stopped
from envs.environment import require_ready
from envs.panel import Panel, load_panel
from envs.records import Task, Trajectory

LIVE_PER_SEQUENCE = 1.5
"""Trajectories under way for each sequence that the engines decode: some of them are always in their environment."""


def side_by_side(config: RunConfig) -> asyncio.Semaphore:
    """Held by each trajectory under way: as many of them as the engines can use."""
    return asyncio.Semaphore(
        max(1, int(LIVE_PER_SEQUENCE * config.inference.max_num_seqs * config.inference.num_servers))
    )


async def evaluate(
    player: Player, tasks: Iterable[Task], config: RunConfig, panel: Panel, *, version: int, run_id: str
) -> EvalResult:
    """Plays every task once, as many side by side as the engines can use."""
    started = time.monotonic()
    live = side_by_side(config)

    async def play(task: Task) -> Trajectory:
        name = f"{run_id}-eval-{panel.name}-v{version}-t{task.index}"
        spec = TrajectorySpec(
            run_id=run_id, group_id=name, group_index=-1, task=task, sibling=0, attempt=0, sampling="eval"
        )
        async with live:
            trajectory = await player.play(spec)
            player.forget((trajectory,))
            return trajectory

    trajectories = await asyncio.gather(*(play(task) for task in tasks))
    return summarise(
        trajectories,
        panel=panel.name,
        panel_hash=panel.hash,
        version=version,
        settings=eval_settings(config),
        duration_s=time.monotonic() - started,
    )


def run_evaluation(run: Path, panel: str | None = None, overrides: list[str] | None = None) -> int:
    """`t2po eval RUN --panel PANEL`: the newest checkpoint's policy (else the start policy); the exit status.

    Nothing of the run is changed but `evaluations/`, so a run may be measured while it goes on.
    """
    folder = RunFolder.read(run)
    config = _changed(folder, overrides or [])
    panel = panel or config.env.eval_panel
    require_ready(config.env)
    chosen = load_panel(config.env.name, panel)
    newest = newest_policy(folder)
    policy, version = newest.folder, newest.version
    check_policy(policy, config)
    tasks = chosen.tasks[: config.eval.num_tasks or None]
    print(f"{policy}: playing {len(tasks)} tasks of {panel}", flush=True)

    async def play(player: Player) -> EvalResult:
        return await evaluate(player, tasks, config, chosen, version=version, run_id=folder.id)

    try:
        result = play_session(config, policy, play, print)
    except Stopped:
        print("stopped; nothing was written")
        return STOPPED_BY_SIGNAL
    path = write_result(result, folder.evaluations, "eval", settings_tag(result.settings))
    print("\n".join([*lines_of(result, f"step {version}"), f"written to {path}"]))
    return 0


def _changed(folder: RunFolder, overrides: list[str]) -> RunConfig:
    """The run's configuration with the changes of the command line."""
    change = parse_overrides(overrides)
    if "model" in change:
        raise ConfigError(
            f"command line: model = {change['model']!r}: an evaluation measures the policy that the run has made; "
            "leave it out, or begin a run with it: t2po train RECIPE model=PATH steps=0"
        )
    return validate(merge(folder.config().model_dump(), change), source=str(folder.path), overrides=overrides)
