"""Evaluation: plays every task of a panel once and says how often the policy succeeds, and how sure that is.

Owns: what is played, the summary, its wording and its file. Called by `controller.train` (before, after
and during a run) and by the CLI (`t2po eval RUN --panel P`). Must not know: training.

The bare policy is measured: TTI and TDS are off unless `eval.interventions` is set. Sampling seeds follow
from the run's seed and the task, so two evaluations of the same weights differ only by what the engine
rounds differently, and evaluations of different weights share their random numbers.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from actors.rollout import TrajectorySpec
from controller.causes import innermost
from controller.checkpoint import CheckpointStore
from controller.cluster import Cluster
from controller.coldstart import check_policy
from controller.config import RunConfig, merge, parse_overrides, validate
from controller.durable_files import write_whole
from controller.interval import wilson_interval
from controller.player import Player
from controller.resume import POLICY_FOLDER
from controller.run_folder import RunFolder
from controller.stop_signal import STOPPED_BY_SIGNAL, Stopped, StopSignal
from envs.panel import Panel, load_panel
from envs.records import Task, Trajectory

LIVE_PER_SEQUENCE = 1.5
"""Trajectories under way for each sequence that the engines decode: some of them are always in their environment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalResult:
    """Success on a panel. `by_kind`: task type -> (won, played); turns and tokens are means a trajectory."""

    panel: str
    panel_hash: str
    version: int
    seed: int
    interventions: bool
    won: int
    played: int
    by_kind: dict[str, tuple[int, int]]
    turns: float
    tokens: float
    invalid_share: float
    duration_s: float

    @property
    def success(self) -> float:
        return self.won / self.played if self.played else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.won, self.played)


def summarise(
    trajectories: Sequence[Trajectory],
    *,
    panel: str,
    panel_hash: str,
    version: int,
    seed: int,
    interventions: bool,
    duration_s: float,
) -> EvalResult:
    """Trajectories -> EvalResult."""
    by_kind: dict[str, tuple[int, int]] = {}
    for trajectory in sorted(trajectories, key=lambda one: one.task.kind):
        won, played = by_kind.get(trajectory.task.kind, (0, 0))
        by_kind[trajectory.task.kind] = (won + trajectory.won, played + 1)
    turns = [turn for trajectory in trajectories for turn in trajectory.turns]
    count = max(1, len(trajectories))
    return EvalResult(
        panel=panel,
        panel_hash=panel_hash,
        version=version,
        seed=seed,
        interventions=interventions,
        won=sum(trajectory.won for trajectory in trajectories),
        played=len(trajectories),
        by_kind=by_kind,
        turns=len(turns) / count,
        tokens=sum(len(turn.accepted.token_ids) for turn in turns) / count,
        invalid_share=sum(not turn.valid for turn in turns) / max(1, len(turns)),
        duration_s=duration_s,
    )


def lines_of(result: EvalResult, label: str) -> list[str]:
    """The result for a person: the total first, then one line a task type."""
    low, high = result.interval
    lines = [
        f"{label}: {result.panel} {result.success:.1%} [{low:.1%}, {high:.1%}] "
        f"({result.won}/{result.played} tasks, {result.turns:.1f} turns, {result.tokens:.0f} tokens, "
        f"{result.invalid_share:.1%} invalid turns, {result.duration_s:.0f} s)"
    ]
    for kind, (won, played) in result.by_kind.items():
        low, high = wilson_interval(won, played)
        lines.append(f"  {kind:<40} {won / played:6.1%} [{low:.1%}, {high:.1%}] ({won}/{played})")
    return lines


def write_result(result: EvalResult, folder: Path, label: str) -> Path:
    """One JSON file an evaluation, named for panel, version and label."""
    path = folder / f"{result.panel}-v{result.version:06d}-{label}.json"
    low, high = result.interval
    row = {**asdict(result), "label": label, "success": result.success, "interval": [low, high], "time": time.time()}
    write_whole(path, json.dumps(row, indent=2, sort_keys=True).encode() + b"\n")
    return path


def was_evaluated(folder: Path, panel: str, label: str) -> bool:
    """Whether a result under this label is there already: a resumed run does not measure its start again."""
    return any(folder.glob(f"{panel}-v*-{label}.json"))


def comparison(folder: Path, panel: str) -> str:
    """Before and after the run in one line; the newest result of each label counts."""
    parts = []
    for label in ("before", "after"):
        files = sorted(folder.glob(f"{panel}-v*-{label}.json"))
        if files:
            row = json.loads(files[-1].read_text(encoding="utf-8"))
            low, high = row["interval"]
            parts.append(f"{row['success']:.1%} [{low:.1%}, {high:.1%}] {label}")
    return f"success on {panel} ({row['played']} tasks): {', '.join(parts)}" if parts else f"{panel} was not evaluated"


async def evaluate(
    player: Player, tasks: Iterable[Task], config: RunConfig, panel: Panel, *, version: int, run_id: str
) -> EvalResult:
    """Plays every task once, as many side by side as the engines can use."""
    started = time.monotonic()
    live = asyncio.Semaphore(
        max(1, int(LIVE_PER_SEQUENCE * config.inference.max_num_seqs * config.inference.num_servers))
    )

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
        seed=config.seed,
        interventions=config.eval.interventions,
        duration_s=time.monotonic() - started,
    )


def run_evaluation(run: Path, panel: str, overrides: list[str] | None = None) -> int:
    """`t2po eval RUN --panel PANEL`: the newest checkpoint's policy (else the start policy); the exit status.

    Nothing of the run is changed but `evaluations/`, so a run may be measured while it goes on.
    """
    folder = RunFolder.read(run)
    tree = merge(folder.config().model_dump(), parse_overrides(overrides or []))
    config = validate(tree, source=str(run))
    chosen = load_panel(config.env.name, panel)
    checkpoint = CheckpointStore(folder.checkpoints, config.checkpoint.keep_last).latest()
    version = checkpoint.state.policy_version if checkpoint else 0
    start = folder.policy if folder.policy.is_dir() else Path(config.model)
    policy = checkpoint.path / POLICY_FOLDER if checkpoint else start
    check_policy(policy)
    tasks = chosen.tasks[: config.eval.num_tasks or None]
    print(f"{policy}: playing {len(tasks)} tasks of {panel}", flush=True)

    async def play() -> EvalResult:
        cluster = Cluster(config, policy, run_folder=None, with_learner=False)
        with StopSignal(print) as stop:
            try:
                await stop.unless(cluster.start())
                playing = evaluate(Player(cluster), tasks, config, chosen, version=version, run_id=folder.id)
                return await stop.unless(cluster.guarded(playing))
            finally:
                await cluster.stop()

    try:
        result = asyncio.run(play())
    except (Stopped, KeyboardInterrupt, asyncio.CancelledError):
        print("stopped; nothing was written")
        return STOPPED_BY_SIGNAL
    except BaseExceptionGroup as error:  # the boundary that stops: one cause is enough, the CLI shows it
        raise innermost(error) from None
    path = write_result(result, folder.evaluations, "eval")
    print("\n".join([*lines_of(result, f"step {version}"), f"written to {path}"]))
    return 0
