"""One life of a training run, from its start, or from its last checkpoint, to its end.

Data flow of a run, once everything is up:

    TaskOrder --task--> Generation --specs--> Player --> environment actors <-> router <-> inference servers
                            |  ^                                                             ^
              whole groups  |  | a slot is free                                              | weights, version
                            v  |                                                             |
         replay queue <-- Inbox                     GroupSlots <------ consumed, published --+
              |             ^                                                                |
              +-- entries --+-- the groups of step s, in order --> Update --> learner -------+
                                                                      |
                                          metrics, trajectories, audit, every few steps a checkpoint,
                                          and only then the queue's entries are acknowledged

`Generation` and `Update` are two loops that share nothing but the slots and the queue. At max_staleness 0
they take turns; above it the rollouts of later steps go on while the learner trains. Step s trains the next
groups_per_step groups of the row (`controller.step_groups`) on policy version s and makes version s + 1,
whatever finished first, so the course of a run follows from its seed.

After a kill: the checkpoint says how many steps are committed. The queue still holds every group that was
finished and not committed; those are trained again, in the same steps as before. Groups that were under
way are played again, from the same seeds. Nothing else has a state.

Owns: start and end of the parts, what comes between the steps, what is said to a person. Called by `controller.train`.
Must not know: Redis, DeepSpeed, vLLM, prompts, what is done after its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from pathlib import Path

from controller.adjustments import Adjustment, NextLife, note_adjustment
from controller.autoscaling import Autoscaler
from controller.busy import BusyMeter
from controller.causes import cause_of, innermost
from controller.checkpoint import CheckpointStore
from controller.cluster import Cluster
from controller.config import RunConfig
from controller.deadline import waits_under_way
from controller.generation import Generation, index_of
from controller.heartbeat import beating
from controller.inbox import Inbox
from controller.learner_ranks import LearnerLost
from controller.live_view import LiveView
from controller.mishaps import Tally
from controller.player import Player
from controller.replay_queue import ReplayQueue
from controller.resume import RunState
from controller.run_care import Care, RunCare
from controller.run_evaluations import RunEvaluations
from controller.run_folder import CONFIG, RunFolder
from controller.run_queue import open_queue, own_server
from controller.run_records import RunRecords
from controller.scale_desk import ScaleDesk
from controller.scaling import Scaling
from controller.slots import GroupSlots
from controller.stop_signal import Stopped, StopSignal
from controller.supervision import describe, describe_rollouts
from controller.task_order import TaskOrder
from controller.threshold_tracking import ThresholdTracker
from controller.update import Update
from controller.valkey import ValkeyServer
from envs.panel import check_disjoint, load_panel
from envs.records import Thresholds

logger = logging.getLogger(__name__)


class Paused(Exception):
    """The run saved itself and ended, as `collapse.on_warning` or `collapse.on_collapse` says; the message says why."""


class TrainingRun:
    """One life of a run: from its start, or from its last checkpoint, to its end."""

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        policy: Path,
        view: LiveView,
        *,
        resumed: bool,
        base: RunConfig | None = None,
        earlier: Tally | None = None,
    ) -> None:
        """`base`: the configuration that the run was begun with, which `config` adjusts; None: it is the same.
        `earlier`: what went wrong in the lives before this one."""
        self.config = config
        self.base = base or config
        self.folder = folder
        self.view = view
        self.resumed = resumed
        self.run_id = folder.id
        self.train_panel = load_panel(config.env.name, config.env.train_panel)
        self.eval_panel = load_panel(config.env.name, config.env.eval_panel)
        check_disjoint(self.train_panel, self.eval_panel)
        folder.check_panels(self.train_panel, self.eval_panel)
        self.done = 0
        self.busy = BusyMeter()
        self.cluster = Cluster(config, policy, run_folder=folder.path, with_learner=True, say=view.part)
        self.player = Player(self.cluster)
        earlier = earlier or Tally()
        self.cluster.restarts.update({"learner": 0} | earlier.restarts)
        self.player.failures.update(earlier.failures)
        store = CheckpointStore(folder.checkpoints, config.checkpoint.keep_last, keep_best=config.checkpoint.keep_best)
        self.tracker = ThresholdTracker(
            config.calibration,
            Thresholds(epsilon=config.tti.epsilon, eta=config.tds.eta),
            config.rollout.max_staleness,
        )
        self.state = RunState(self.base, folder.path / CONFIG, store, self.cluster, self.tracker)
        self.evaluations = RunEvaluations(
            config, folder.id, self.eval_panel, folder.evaluations, self.cluster, self.player,
            rate=self.state.rate, say=view.part, note=view.note,
        )  # fmt: skip
        self.slots: GroupSlots
        self.generation: Generation
        self.records = RunRecords(config, folder, view)
        self.desk = ScaleDesk(
            config, folder.path, Scaling(self.cluster, self.player, view.part), lambda: self.done,
            self._change_learners, view.note,
        )  # fmt: skip
        self.autoscaler = Autoscaler(config.autoscale, config.rollout.groups_per_step)
        self.waiting_since: float | None = None
        """When the last step ended; None while no step is meant to be done."""
        self.next_life: NextLife | None = None
        """What is due when the step under way is done."""
        self.inbox: Inbox
        self.health: RunCare

    async def conduct(self) -> None:
        """Everything from start-up to the last evaluation; leaves no process behind, however it ends."""
        with StopSignal(self.view.note) as stop:
            await beating(self._conduct(stop), self._beat)

    async def _conduct(self, stop: StopSignal) -> None:
        async with contextlib.AsyncExitStack() as ending:
            try:
                await stop.unless(self._start(ending))
                stop.listen()
                await beating(self._train(stop), self._come_round)
            except (Stopped, Paused, NextLife):
                raise
            except Exception as error:
                # Now, and not when the parts are stopped: a Ray without its raylet may end this process during that.
                self.view.note(f"this life of the run ends: {cause_of(error)}")
                raise

    async def _start(self, ending: contextlib.AsyncExitStack) -> None:
        """Every part, then the committed state of the run, if there is one. `ending` undoes it, in reverse order."""
        self.view.note("starting Ray, the inference engine, the environments, the learner and the replay queue")
        began = time.monotonic()
        config, size = self.config, self.config.rollout.groups_per_step
        await self.state.find()  # before anything is started: it may say that the run cannot go on
        self.records.serve()
        ending.callback(self.records.close)
        server = own_server(config, self.folder)
        if server:
            ending.push_async_callback(asyncio.to_thread, server.stop)
        # The queue first: it is there in a second, or says at once why not.
        queue = await asyncio.to_thread(self._open_queue, server)
        self.inbox = Inbox(queue, max_pull=2 * size)
        ending.callback(self.inbox.close)
        ending.push_async_callback(self.cluster.stop)
        ending.callback(self._say, "run", "ending")
        await self.cluster.start()
        self.done = await self.state.take_up()
        self.slots = GroupSlots(
            config.rollout.max_staleness, size, config.steps, most_per_step=config.most_groups_per_step,
            next_index=self.state.first_group, version=self.done,
        )  # fmt: skip
        self.generation = Generation(
            self.run_id,
            config.rollout.group_size,
            self.player,
            self.slots,
            TaskOrder(self.train_panel.tasks, config.seed),
            push=self.inbox.push,
            note=lambda event, **fields: self.records.note(event, self.done + 1, **fields),  # the step under way
            thresholds=lambda index, sibling: self.tracker.of_trajectory(self.slots.step_of(index), index, sibling),
        )
        earlier = self.records.take_up(self.done, resumed=self.resumed)
        self.health = RunCare(config, self.base, self.folder.path, earlier, self.view.note)
        ending.callback(self.health.close)
        ending.push_async_callback(self.health.told)
        ending.push_async_callback(self.desk.close)
        self.view.note(
            f"everything is up after {time.monotonic() - began:.0f} s"
            + (f"; going on after step {self.done}" if self.done else "")
        )

    def _open_queue(self, server: ValkeyServer | None) -> ReplayQueue:
        return open_queue(self.config, self.run_id, server)

    async def _train(self, stop: StopSignal) -> None:
        if self.done == 0 and self.evaluations.first_is_due:
            await stop.unless(self.evaluations.play("before", 0))
        if self.done < self.config.steps:
            try:
                await self._loops(stop)
            except NextLife as change:
                if change.back_to is not None:
                    await self.inbox.discard()  # what was played since is of a policy that never was
                raise
        await stop.unless(self.evaluations.play("after", self.done))
        await self.inbox.discard()
        self.view.note(self.evaluations.comparison())
        self.view.note(f"done; the policy is {self.state.policy}; measure it with: t2po eval {self.folder.path}")

    async def _loops(self, stop: StopSignal) -> None:
        """Generation, updates and supervision side by side, until the last step, a stop, or the first failure."""
        refilled = await self.state.refill(self.inbox, self.slots, self.generation)
        if self.done or self.slots.held:
            self.view.note(refilled)
        update = Update(
            self.cluster,
            self.inbox,
            self.slots,
            self.player,
            self.busy,
            self.tracker,
            trajectories=self.folder.trajectories,
            damaged=lambda names: self.generation.again(map(index_of, names)),
            wake=self.generation.wake,
            come_round=stop.check,
            say=self._say,
        )
        self.busy.shares([])  # the time before the first step belongs to no step
        loops = {
            asyncio.create_task(self._steps(update, stop), name="updates"),
            asyncio.create_task(self.generation.run(), name="generation"),
            asyncio.create_task(self.cluster.watch(), name="supervision"),
        }
        try:
            finished, _ = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
            for loop in sorted(finished, key=_died_of_lost_learner):
                loop.result()
        except Stopped:
            if self.done > self.state.committed:
                await self._commit()
            raise
        except Exception as error:
            if not isinstance(innermost(error), LearnerLost):
                await self._save_what_is_done(update)
            raise
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)

    async def _save_what_is_done(self, update: Update) -> None:
        """After the failure of another part, if the learner still stands where the last step left it."""
        if self.waiting_since is None or update.is_training or self.done == self.state.committed:
            return
        try:
            await self._commit()
        except Exception as error:  # the boundary that stops: the failure before is what ends the run
            logger.warning("step %d was not saved: %s", self.done, cause_of(error))

    async def _steps(self, update: Update, stop: StopSignal) -> None:
        while self.done < self.config.steps:
            self.waiting_since = time.monotonic()
            outcome = await update.run_step(self.done)
            self.waiting_since = None
            values = outcome.values
            self.done += 1
            self.generation.wake()
            self.records.trained(self.done, outcome)
            values["foreign_entries"] = float(await self.inbox.num_foreign())
            values |= self.health.observe(self.done, values)
            self.records.step(self.done, values)
            if (size := self.autoscaler.observe(values)) is not None:
                self.desk.ask(size)
            await self._heed(await self.health.care())
            if self.evaluations.is_due(self.done):
                await stop.unless(self.evaluations.play("during", self.done, watched=True))
            stop.check()

    async def _heed(self, care: Care) -> None:
        """What is due between two steps: a checkpoint, a pause, another life of the run, or a way back."""
        change = self.next_life
        if care.changes:  # what was asked for besides, other learner ranks, comes with it
            wanted = NextLife(care.changes, care.cause, care.back_to if care.roll_back else None)
            change = change.joined_by(wanted) if change else wanted
        if (change or care.save or care.pause or self._checkpoint_is_due()) and not care.roll_back:
            await self._commit()
        if change:
            note_adjustment(self.folder.path, Adjustment(self.done, change.changes, change.cause))
        if care.pause and not care.roll_back:
            raise Paused(care.cause)
        if change:
            raise change

    def _checkpoint_is_due(self) -> bool:
        """Every so many steps, at the end, before an evaluation whose policy may be the best, and before the queue is
        full: places become free only with a commit."""
        config = self.config
        will_fill = self.inbox.num_trained + self.slots.most_through_next_step > config.queue.max_groups
        evaluated = config.checkpoint.keep_best and self.evaluations.is_due(self.done)
        return self.done % config.checkpoint.every_steps == 0 or self.done == config.steps or evaluated or will_fill

    def _change_learners(self, count: int) -> None:
        cause = f"t2po scale: {count} learner ranks instead of {self.config.learner.num_ranks}"
        self.next_life = NextLife({"learner.num_ranks": count}, cause)

    async def _commit(self) -> None:
        self._say("learner", f"saving step {self.done}")
        with self.busy.span("checkpoint"):
            await self.state.commit(self.done, self.inbox, self.slots, self.generation, self.health.last_healthy_step)
        self.records.note("committed", self.done)

    def _beat(self) -> None:
        """Every second, from the first moment to the last."""
        self.view.come_round(waits_under_way())
        self.records.beat()

    def _come_round(self) -> None:
        """Every second while it trains. A stop is not looked for here: it waits until the step under way is done."""
        self.desk.look()
        if self.waiting_since is not None:
            self.health.while_waiting(time.monotonic() - self.waiting_since)
        count, groups = self.player.live, self.generation.num_under_way
        self._say("rollouts", describe_rollouts(count, groups, self.slots.free))
        for name, status in sorted(self.cluster.status.items()):
            self._say(name, describe(status))

    def _say(self, part: str, doing: str) -> None:
        self.view.part(part, doing)


def _died_of_lost_learner(loop: asyncio.Task[None]) -> bool:
    """The learner is ended when it fails, and then found dead: what it failed of comes first."""
    error = loop.exception()
    return error is not None and isinstance(innermost(error), LearnerLost)
