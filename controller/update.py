"""The optimizer steps: groups of a step -> learner -> weights live everywhere -> slots free -> numbers.

Owns: the order of these, and the numbers of a step. Called by `controller.train`. Must not know: how
groups are made, how a checkpoint is written.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.busy import BusyMeter
from controller.cluster import Cluster
from controller.deadline import noted
from controller.inbox import Inbox
from controller.metrics import MovingMean
from controller.overlap_bound import overlap_of
from controller.player import Player
from controller.process_usage import usage_of_run
from controller.rollout_metrics import rollout_metrics
from controller.slots import GroupSlots
from controller.step_groups import StepGroups, is_kept_by
from controller.threshold_tracking import ThresholdTracker
from controller.trajectory_log import write_trajectories
from envs.records import TrajectoryGroup

PARTS = ("generation", "environments", "learner", "weights", "checkpoint")
"""Parts whose shares of the time are shown (`metric_definitions`: busy_*); idle is when none of them is busy."""

STEP_TIMES_KEPT = 5
"""Steps that the estimate of the remaining time is taken from."""


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """The groups that a step trained, those that `advantage.keep_groups` left out of it, its metrics (of both)."""

    trained: list[TrajectoryGroup]
    dropped: list[TrajectoryGroup]
    values: dict[str, float]


class Update:
    """`run_step(step)` does one optimizer step."""

    def __init__(
        self,
        cluster: Cluster,
        inbox: Inbox,
        slots: GroupSlots,
        player: Player,
        busy: BusyMeter,
        tracker: ThresholdTracker,
        *,
        trajectories: Path,
        damaged: Callable[[list[str]], None],
        wake: Callable[[], None],
        come_round: Callable[[], None],
        say: Callable[[str, str], None],
    ) -> None:
        """`wake`: slots were freed. `come_round` is called at least every second while waiting; it may raise.
        `say(part, doing)`: the view."""
        self._cluster = cluster
        self._config = cluster.config
        self._inbox = inbox
        self._slots = slots
        self._player = player
        self._busy = busy
        self._tracker = tracker
        self._trajectories = trajectories
        self._damaged = damaged
        self._wake = wake
        self._is_kept = is_kept_by(cluster.config.advantage)
        self._come_round = come_round
        self._say = say
        self.is_training = False
        """Whether the learner is, or may be, ahead of the last finished step."""
        self._success = MovingMean()
        self._step_times = MovingMean(STEP_TIMES_KEPT)

    async def run_step(self, step: int) -> StepOutcome:
        """Step number `step` trains policy version `step` and makes version step + 1 live."""
        row = StepGroups(
            self._slots.first_index, self._config.rollout.groups_per_step, self._config.most_groups_per_step,
            self._is_kept, self._drop,
        )  # fmt: skip
        began = time.monotonic()
        self._say("learner", f"waiting for the groups of step {step + 1}")
        with noted(f"the groups of step {step + 1}", self._patience_s):
            groups = await self._inbox.take(row, self._patience_s, self._damaged, self._come_round)
        waited = time.monotonic() - began
        kept = [group for group in groups if row.is_kept(group)]
        dropped = [group for group in groups if not row.is_kept(group)]
        self.is_training = True
        learned = await self.train(kept or dropped, step)  # without a group of use no update is made
        if self._config.advantage.keep_groups != "all":
            learned["groups_dropped"] = float(len(dropped))
        # Beside the loop: thousands of trajectories take seconds, in which every part waits for its answer.
        rolled_out = await asyncio.to_thread(rollout_metrics, groups, step)
        if thresholds := self._tracker.of_step(step):
            tti = self._config.tti
            cut = self._tracker.cut_share(step, groups, tti.window, tti.min_tokens)
            rolled_out |= {"tti_epsilon": thresholds.epsilon, "tds_eta": thresholds.eta, "cut_share": cut}
            # Before slots are free: the groups that take them are played under what follows from this step.
            self._tracker.observe(step, cut, rolled_out["resampled_turns"])
        report = await self.publish(step + 1)
        lag = self._slots.consume(row.indices.stop, step)
        self._slots.publish(step + 1)
        token_groups = self._config.metrics.token_groups
        await asyncio.to_thread(write_trajectories, self._trajectories, step + 1, groups, token_groups)
        values = {**learned, **rolled_out, **report, "wait_s": waited, "slot_lag": float(lag)}
        values |= await self._flow(step, values)
        self.is_training = False
        return StepOutcome(trained=kept, dropped=dropped, values=values)

    def _drop(self) -> None:
        self._slots.drop()
        self._wake()

    async def train(self, groups: list[TrajectoryGroup], version: int) -> dict[str, float]:
        """One `train_step` of the learner."""
        self._say("learner", f"step {version + 1}: training on {len(groups)} groups")
        with self._busy.span("learner"):
            call = self._cluster.learner.train_step.remote(groups, version)
            return await self._cluster.ask_learner(call, f"training step {version + 1}")

    async def publish(self, version: int) -> dict[str, float]:
        """The learner's weights go live everywhere as `version`; size and times of it."""
        self._say("learner", f"sending weights of version {version}")
        began = time.monotonic()
        with self._busy.span("weights"):
            weights = await self._cluster.learner_weights(version)
            reports: dict[str, Any] = await self._cluster.publication.publish(version, weights)
        return {
            "weights_s": time.monotonic() - began,
            "weights_bytes": float(sum(report.bytes for report in reports.values())),
            "weights_pause_s": max((report.pause_seconds for report in reports.values()), default=0.0),
            "weights_verified": float(any(report.checksums is not None for report in reports.values())),
        }

    async def _flow(self, step: int, values: dict[str, float]) -> dict[str, float]:
        """Numbers of the loop itself."""
        until = self._busy.now()
        for part, spans in await self._cluster.busy_spans():
            self._busy.add(part, spans)
        period = self._busy.period(until)
        seconds = period.seconds
        typical = self._step_times.add(seconds)
        flow = {
            "success_moving": self._success.add(values["success"]),
            "skipped_steps": values.get("updates_skipped", 0.0),
            "tokens_per_s": values["sampled_tokens"] / seconds,
            "env_actors": float(len(self._cluster.env)),
            "inference_servers": float(len(self._cluster.inference)),
            "queue_depth": float(await self._inbox.depth()),
            "groups_ready": float(self._inbox.num_ready),
            "groups_under_way": float(self._slots.held - self._inbox.num_ready),
            "step_s": seconds,
            "eta_s": typical * (self._config.steps - step - 1),
            "replayed_turns": float(self._player.replayed_turns),
            "repeated_groups": float(self._inbox.repeated),
            **{f"busy_{part}": share for part, share in period.shares(PARTS).items()},
            **overlap_of(period),
            **await usage_of_run(),
            **{f"restarts_{part}": float(count) for part, count in self._cluster.restarts.items()},
            **{f"failed_attempts_{reason}": float(count) for reason, count in self._player.failures.items()},
        }
        return flow

    @property
    def _patience_s(self) -> float:
        """A backstop: every trajectory has its own deadline and a budget of attempts, all far below this."""
        rollout = self._config.rollout
        return rollout.trajectory_timeout_s * rollout.max_attempts + 2 * self._config.inference.start_timeout_s
