"""Committing the state of a run, and going on from what was committed.

Owns: what a checkpoint of a run holds, the order commit -> acknowledge -> audit, and how queue, checkpoint and
live trajectories become a run again. Called by `controller.train`. Must not know: what the learner writes,
where files lie inside a checkpoint's folder beyond the two names below.

After a kill nothing but the checkpoint and the queue is left, and they are enough. The checkpoint says that
steps below `step` happened. The queue holds every group that was finished since; they are trained in the same
steps as before, so a repeated step is the same step. A group that was under way at the checkpoint goes on
from its last accepted turn known then; one that began later is played again from the same seeds.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from pathlib import Path
from typing import Any

from ray.exceptions import RayActorError

from actors.home_router import home_router
from controller.checkpoint import (
    LEARNER_FOLDER,
    POLICY_FOLDER,
    Checkpoint,
    CheckpointError,
    CheckpointState,
    CheckpointStore,
    OutstandingGroup,
)
from controller.cluster import Cluster
from controller.config import RunConfig
from controller.deadline import DeadlineError, bounded
from controller.generation import Generation
from controller.inbox import Inbox
from controller.slots import GroupSlots
from controller.threshold_tracking import ThresholdTracker
from envs.codec import decode_turns, encode_turns
from envs.records import Turn

logger = logging.getLogger(__name__)

ROUTER_TIMEOUT_S = 60.0

FREE_TO_CHANGE = (
    "name", "runs_dir", "metrics.port", "queue.url", "queue.ca_file", "queue.timeout_s", "steps",
    "learner.num_ranks", "learner.num_threads", "learner.device", "learner.zero_stage", "learner.offload",
    "learner.activation_checkpointing", "learner.micro_batch_tokens", "learner.step_timeout_s",
    "supervision.ping_every_s", "supervision.ping_timeout_s", "supervision.max_restarts",
    "supervision.restart_window_s",
    "supervision.restart_pause_s", "supervision.longest_pause_s",
)  # fmt: skip
"""Knobs that say where a run lives, how long it goes on and how the learner's work is divided, not what it does: a
resume may find them changed."""


def model_fingerprint(policy: Path) -> str:
    """Tells one model from another by its shape: the hash of its `config.json`."""
    return hashlib.blake2b((policy / "config.json").read_bytes(), digest_size=8).hexdigest()


def settings_of(config: RunConfig) -> dict[str, Any]:
    """The knobs that make a run what it is, by dotted key."""
    flat: dict[str, Any] = {}

    def walk(tree: dict[str, Any], prefix: str) -> None:
        for name, value in tree.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{name}.")
            else:
                flat[prefix + name] = value

    walk(config.model_dump(mode="json"), "")
    return {key: value for key, value in flat.items() if key not in FREE_TO_CHANGE}


def check_settings(checkpoint: Checkpoint, config: RunConfig, source: Path) -> None:
    """Raises when the configuration read from `source` is not the one that the run had at its checkpoint."""
    now, then = settings_of(config), checkpoint.state.settings
    # A knob that only one side has came or went with a version of t2po; an edit cannot do that.
    common = sorted(now.keys() & then.keys())
    changes = [f"{key} = {now[key]!r}, was {then[key]!r}" for key in common if now[key] != then[key]]
    if changes:
        raise CheckpointError(
            f"{source}: changed since step {checkpoint.step} was saved: {'; '.join(changes)}; a run goes on as it "
            "began: restore the file, or begin a new run with these values"
        )


class RunState:
    """The committed state of one run."""

    def __init__(
        self,
        config: RunConfig,
        config_file: Path,
        store: CheckpointStore,
        cluster: Cluster,
        tracker: ThresholdTracker,
    ) -> None:
        """`config_file` is where `config` was read from: for the error that says it was changed."""
        self._config = config
        self._config_file = config_file
        self._store = store
        self._cluster = cluster
        self._tracker = tracker
        self._fingerprint = model_fingerprint(cluster.policy)
        self._checkpoint: Checkpoint | None = None
        self.committed = 0

    @property
    def policy(self) -> Path:
        """The newest committed policy as a Hugging Face folder; the start policy before the first commit."""
        return self._checkpoint.path / POLICY_FOLDER if self._checkpoint else self._cluster.policy

    @property
    def first_group(self) -> int:
        """The first group that no committed step has taken."""
        if self._checkpoint is None:
            return 0
        known = self._checkpoint.state.first_group_index
        return known if known >= 0 else self._checkpoint.step * self._config.rollout.groups_per_step

    async def find(self) -> None:
        """Finds the newest checkpoint that is whole, and checks that it is of this run. Nothing has to be up for it."""
        self._checkpoint = await asyncio.to_thread(self._store.latest, self._fingerprint)
        if self._checkpoint is not None:
            check_settings(self._checkpoint, self._config, self._config_file)

    async def take_up(self) -> int:
        """Loads what `find` found into the learner, its weights into the engines; the steps that are done."""
        if self._checkpoint is None:
            return 0
        learner, step = self._cluster.learner, self._checkpoint.step
        call = learner.load.remote(str(self._checkpoint.path / LEARNER_FOLDER))
        await self._cluster.ask_learner(call, f"loading step {step}")
        version = self._checkpoint.state.policy_version
        await self._cluster.publication.publish(version, await self._cluster.learner_weights(version))
        if self._checkpoint.state.thresholds:
            self._tracker.restore(self._checkpoint.state.thresholds)
        self.committed = step
        return step

    async def refill(self, inbox: Inbox, slots: GroupSlots, generation: Generation) -> str:
        """Slots and generation as they were: what the queue holds waits for its step, the rest is played (again)."""
        first = slots.first_index
        waiting, settled = await inbox.recover(first)
        live: dict[int, dict[str, tuple[Turn, ...]]] = {}
        cursor = first
        if self._checkpoint is not None:
            cursor = self._checkpoint.state.next_group_index
            for group in self._checkpoint.state.outstanding:
                live[group.index] = {name: decode_turns(data) for name, data in group.live.items()}
        known = range(first, max(cursor, max(waiting, default=-1) + 1))
        for index in known:
            slots.adopt(index)
        missing = [index for index in known if index not in waiting]
        generation.again(missing, live)
        turns = sum(len(one) for index in missing for one in live.get(index, {}).values())
        return (
            f"{len(waiting)} finished groups are in the queue, {len(missing)} go on or are played again "
            f"({turns} turns known), {settled} entries were trained and committed already"
        )

    async def commit(
        self, step: int, inbox: Inbox, slots: GroupSlots, generation: Generation, last_healthy: int | None = None
    ) -> None:
        """Everything of `step` steps, in one atomic step; then the queue may let its entries go.

        The newest checkpoint of at most step `last_healthy` is kept, however old it is.
        """
        self._store.last_healthy = last_healthy
        state = CheckpointState(
            step=step,
            policy_version=step,
            next_group_index=slots.next_index,
            first_group_index=slots.first_index,
            outstanding=await self._outstanding(generation),
            settings=settings_of(self._config),
            model_fingerprint=self._fingerprint,
            thresholds=self._tracker.state(),
        )
        path = await asyncio.to_thread(self._store.begin, step)
        learner = self._cluster.learner
        await self._cluster.ask_learner(learner.save.remote(str(path / LEARNER_FOLDER)), f"saving step {step}")
        await self._cluster.ask_learner(learner.export.remote(str(path / POLICY_FOLDER)), f"exporting step {step}")
        self._checkpoint = await asyncio.to_thread(self._store.commit, step, state)
        self.committed = step
        await inbox.committed()

    def rate(self, step: int, success: float) -> None:
        """What an evaluation found of the policy after `step` steps: the best checkpoint is kept."""
        self._store.rate(step, success)

    async def _outstanding(self, generation: Generation) -> tuple[OutstandingGroup, ...]:
        """Groups under way with the turns that their routers know; without them (one restarts) they begin afresh."""
        groups = generation.outstanding()
        routers = self._cluster.routers
        asked: list[list[str]] = [[] for _ in routers]
        for group in groups:
            asked[home_router(group.id, len(routers))] += group.trajectories
        known = await asyncio.gather(*(self._live_turns(router, names) for router, names in enumerate(asked)))
        turns = {name: found for one in known for name, found in one.items()}
        return tuple(
            OutstandingGroup(
                id=group.id,
                index=group.index,
                task_id=group.task_id,
                live={
                    f"{group.id}/{sibling}": encode_turns(turns[name])
                    for sibling, name in enumerate(group.trajectories)
                    if turns.get(name)
                },
            )
            for group in groups
        )

    async def _live_turns(self, router: int, trajectory_ids: list[str]) -> dict[str, tuple[Turn, ...]]:
        try:
            call = self._cluster.routers[router].live_many.remote(trajectory_ids)
            return await bounded(call, ROUTER_TIMEOUT_S, f"router-{router}: live turns")
        except (RayActorError, DeadlineError) as error:
            logger.warning("the checkpoint has no live turns of router-%d: %s", router, error)
            return {}
