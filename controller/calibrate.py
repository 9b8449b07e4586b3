"""`t2po calibrate MODEL ENV`: plays tasks, proposes ε and η for stated rates, and checks them on fresh tasks.

Owns: the rounds of play, the report, the files. Called by the CLI. Must not know: the arithmetic
(`controller.calibration`), how the plot is drawn (`controller.calibration_plot`).

Three rounds, each on tasks of its own, sampled as training samples:
1. no intervention but the cap: M of every thought gives ε for the share of thinking tokens to cut;
2. that ε acts: Γ of every turn gives η for the share of turns to sample again (a shorter thought has another Φ);
3. both act: the rates that were reached.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from actors.rollout import TrajectorySpec
from controller.calibration import cut_curve, epsilon_for, eta_for, gammas_of, resampled_share, thoughts_of
from controller.calibration_plot import draw_calibration
from controller.config import ConfigError, RunConfig
from controller.part_settings import sampling_specs
from controller.play_session import play_session
from controller.player import Player
from controller.policy_folder import check_policy, find_policy
from controller.rollout_metrics import rollout_metrics
from controller.task_order import TaskOrder
from controller.uncut_thoughts import uncut_lengths
from envs.environment import require_ready
from envs.panel import load_panel
from envs.records import Thresholds, Trajectory, TrajectoryGroup, Turn

Say = Callable[[str], None]
NO_THRESHOLDS = Thresholds(epsilon=0.0, eta=0.0)
"""Nothing lies below them: no thought is saturated, no turn stalled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """Share of thinking tokens to cut, share of turns to sample again."""

    cut: float
    resampled: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What was found. Shares `*_expected` on the tasks that were measured, `*_reached` on fresh ones.

    `cut_reached` is counted by sampling each cut thought again to its end; `cut_estimated` is what training reports of
    the same turns without doing that (`controller.tokens_saved`).
    """

    epsilon: float
    eta: float
    window: int
    min_tokens: int
    cut_target: float
    cut_expected: float
    cut_reached: float
    cut_estimated: float
    resampled_target: float
    resampled_expected: float
    resampled_reached: float
    num_thoughts: int
    num_turns: int

    def lines(self) -> list[str]:
        return [
            f"thinking tokens cut: target {self.cut_target:.1%}, on fresh tasks {self.cut_reached:.1%}",
            f"turns sampled again: target {self.resampled_target:.1%}, on fresh tasks {self.resampled_reached:.1%}",
            f"use them: tti.epsilon={self.epsilon:.4g} tti.window={self.window} tti.min_tokens={self.min_tokens} "
            f"tds.eta={self.eta:.4g}",
        ]


def run_calibration(model: str, config: RunConfig, targets: Targets, num_tasks: int, to: Path, say: Say = print) -> int:
    """The exit status; writes calibration.json and calibration.png below `to`."""
    if config.tti.acts != "paper" or config.tti.signal == "release":
        raise ConfigError(
            f"command line: tti.variant = {config.tti.acts!r}, tti.signal = {config.tti.signal!r}: only "
            "tti.variant = 'paper' has an epsilon to calibrate, and its signal is not 'release'"
        )
    require_ready(config.env)
    policy = find_policy(model)
    check_policy(policy, config)
    order = TaskOrder(load_panel(config.env.name, config.env.train_panel).tasks, config.seed)

    async def calibrate(player: Player) -> Calibration:
        say(f"{policy}: 3 rounds of {num_tasks} tasks of {config.env.train_panel}")
        tti = config.tti
        turns = _turns(await _play(player, order, 0, num_tasks, NO_THRESHOLDS))
        thoughts = thoughts_of(turn.accepted for turn in turns)
        curve = cut_curve(thoughts, tti.window, tti.min_tokens)
        epsilon = epsilon_for(curve, targets.cut)
        say(f"round 1: {len(thoughts)} thoughts in {len(turns)} turns -> epsilon {epsilon:.4g}")
        between = _turns(await _play(player, order, 1, num_tasks, Thresholds(epsilon=epsilon, eta=0.0)))
        gammas = gammas_of(between)
        eta = eta_for(gammas, targets.resampled)
        say(f"round 2: {len(between)} turns -> eta {eta:.4g}")
        fresh = await _play(player, order, 2, num_tasks, Thresholds(epsilon=epsilon, eta=eta))
        measured = rollout_metrics(_as_groups(fresh), 0)
        # All are asked for at once: the last one waits for the others.
        sampling, patience_s = sampling_specs(config)["train"], config.rollout.trajectory_timeout_s
        pairs = await uncut_lengths(player.server, fresh, sampling, patience_s)
        saved = sum(whole - sampled for sampled, whole in pairs)
        sampled = sum(turn.accepted.num_think_tokens for turn in _turns(fresh))
        found = Calibration(
            epsilon=epsilon,
            eta=eta,
            window=tti.window,
            min_tokens=tti.min_tokens,
            cut_target=targets.cut,
            cut_expected=curve.at(epsilon),
            cut_reached=saved / max(saved + sampled, 1),
            cut_estimated=measured["cut_share"],
            resampled_target=targets.resampled,
            resampled_expected=resampled_share(gammas, eta),
            resampled_reached=measured["resampled_turns"],
            num_thoughts=len(thoughts),
            num_turns=len(between),
        )
        to.mkdir(parents=True, exist_ok=True)
        curves = {n: cut_curve(thoughts, n, tti.min_tokens) for n in sorted({1, 2, 3, 5, 8, tti.window})}
        draw_calibration(to / "calibration.png", curves, gammas, found)
        (to / "calibration.json").write_text(json.dumps(asdict(found), indent=1) + "\n")
        return found

    found = play_session(config, policy, calibrate, say)
    say("\n".join([*found.lines(), f"plot and numbers: {to}/calibration.png, {to}/calibration.json"]))
    return 0


async def _play(
    player: Player, order: TaskOrder, part: int, num_tasks: int, thresholds: Thresholds
) -> list[Trajectory]:
    """One trajectory of each task of a round; rounds do not share tasks while the panel has enough."""

    async def one(index: int) -> Trajectory:
        task, visit = order.task(index)
        name = f"calibrate-r{part}-t{index}"
        spec = TrajectorySpec(
            run_id="calibrate",
            group_id=name,
            group_index=-1,
            task=task,
            sibling=0,
            attempt=0,
            sampling="train",
            visit=visit,
            thresholds=thresholds,
        )
        trajectory = await player.play(spec)
        player.forget((trajectory,))
        return trajectory

    return list(await asyncio.gather(*(one(part * num_tasks + place) for place in range(num_tasks))))


def _turns(trajectories: Sequence[Trajectory]) -> list[Turn]:
    return [turn for trajectory in trajectories for turn in trajectory.turns]


def _as_groups(trajectories: Sequence[Trajectory]) -> list[TrajectoryGroup]:
    return [
        TrajectoryGroup(id=trajectory.group_id, index=index, task=trajectory.task, trajectories=(trajectory,))
        for index, trajectory in enumerate(trajectories)
    ]
