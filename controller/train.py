"""A training run from start to end: `run_training` and `resume_training`.

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
they take turns; above it the rollouts of later steps go on while the learner trains. Step s trains the
groups s x groups_per_step and following on policy version s and makes version s + 1, whatever finished
first, so the course of a run follows from its seed.

After a kill: the checkpoint says how many steps are committed. The queue still holds every group that was
finished and not committed; those are trained again, in the same steps as before. Groups that were under
way are played again, from the same seeds. Nothing else has a state.

Owns: start and end of the parts, evaluation and checkpoints between the steps, what is said to a person.
Called by the CLI. Must not know: Redis, DeepSpeed, vLLM, prompts.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from pathlib import Path

from controller.audit import AuditLog
from controller.busy import BusyMeter
from controller.checkpoint import CheckpointStore
from controller.cluster import Cluster, cause_of
from controller.coldstart import prepare_policy
from controller.config import RunConfig
from controller.deadline import bounded
from controller.evaluate import EvalResult, evaluate, lines_of, write_result
from controller.generation import Generation, group_id
from controller.inbox import Inbox
from controller.live_view import LiveView
from controller.metrics import MetricsLog, StepMetrics
from controller.metrics_endpoint import open_endpoint
from controller.player import Player
from controller.replay_queue import ReplayQueue
from controller.run_folder import RunFolder
from controller.slots import GroupSlots
from controller.stop_signal import Stopped, StopSignal
from controller.task_order import TaskOrder
from controller.update import Update
from controller.valkey import ValkeyServer
from envs.panel import Panel, check_disjoint, load_panel
from envs.records import TrajectoryGroup

logger = logging.getLogger(__name__)
STOPPED_BY_SIGNAL = 130
LEARNER_FOLDER, POLICY_FOLDER = "learner", "policy"
"""Inside a checkpoint: the learner's own files, and the policy as a plain Hugging Face folder."""


def run_training(config: RunConfig, recipe: str) -> int:
    """A new run; the process's exit status."""
    return _guarded(RunFolder.create(config, recipe), config)


def resume_training(run_folder: Path) -> int:
    """Goes on with a run from its last committed checkpoint; the process's exit status."""
    folder = RunFolder.open(run_folder)
    return _guarded(folder, folder.config())


def _guarded(folder: RunFolder, config: RunConfig) -> int:
    """The boundary that stops: whatever ends the run is named, with the way to go on."""
    _log_to(folder)
    with LiveView(folder.path.name, config.steps) as view:
        try:
            policy = prepare_policy(config, folder.policy, view.note)
            asyncio.run(TrainingRun(config, folder, policy, view).conduct())
        except (Stopped, KeyboardInterrupt, asyncio.CancelledError):
            view.note(f"stopped; go on with: t2po train --resume {folder.path}")
            return STOPPED_BY_SIGNAL
        except Exception as error:
            cause = innermost(error)
            logger.error("the run ended", exc_info=error)
            view.note(f"error: {cause_of(cause)}")
            view.note(f"the details are in {folder.log}; go on with: t2po train --resume {folder.path}")
            return 1
    return 0


class TrainingRun:
    """One life of a run: from its start, or from its last checkpoint, to its end."""

    def __init__(self, config: RunConfig, folder: RunFolder, policy: Path, view: LiveView) -> None:
        self.config = config
        self.folder = folder
        self.view = view
        self.run_id = folder.path.name
        self.train_panel = load_panel(config.env.name, config.env.train_panel)
        self.eval_panel = load_panel(config.env.name, config.env.eval_panel)
        check_disjoint(self.train_panel, self.eval_panel)
        self.checkpoints = CheckpointStore(folder.checkpoints, config.checkpoint.keep_last)
        self.committed = 0
        self.done = 0
        self.busy = BusyMeter()
        self.cluster = Cluster(config, policy, run_folder=folder.path, with_learner=True)
        self.player = Player(self.cluster, self.busy)
        self.endpoint = open_endpoint(config.metrics.port)

    async def conduct(self) -> None:
        """Everything from start-up to the last evaluation; leaves no process behind, however it ends."""
        server = None if self.config.queue.url else ValkeyServer(self.folder.queue, log=self.folder.path / "valkey.log")
        with StopSignal(self.view.note) as stop:
            try:
                starting = asyncio.gather(self._start(), *([asyncio.to_thread(server.start)] if server else []))
                await stop.unless(starting)
                await self._train(stop, server)
            finally:
                self.view.part("run", "ending")
                await self.cluster.stop()
                if server:
                    await asyncio.to_thread(server.stop)
                if self.endpoint:
                    self.endpoint.close()

    async def _start(self) -> None:
        self.view.part("run", "starting Ray, the inference engine, the environments and the learner")
        began = time.monotonic()
        await self.cluster.start()
        checkpoint = self.checkpoints.latest()
        if checkpoint is not None:
            self.committed = self.done = checkpoint.step
            call = self.cluster.learner.load.remote(str(checkpoint.path / LEARNER_FOLDER))
            await bounded(call, self.config.learner.step_timeout_s, f"learner: loading {checkpoint.path.name}")
            await self.cluster.publish(self.done, self.cluster.learner.weights.remote())
            self.view.note(f"going on from step {self.done} ({checkpoint.path.name})")
        self.view.note(f"everything is up after {time.monotonic() - began:.0f} s")

    async def _train(self, stop: StopSignal, server: ValkeyServer | None) -> None:
        config = self.config
        revive = server.ensure_alive if server else None
        url = server.url if server else config.queue.url
        queue = await asyncio.to_thread(
            ReplayQueue, url, self.run_id, config.queue.max_groups, config.queue.timeout_s, revive=revive
        )
        self.inbox = Inbox(queue, max_pull=2 * config.rollout.groups_per_step)
        self.audit = AuditLog(self.folder.audit)
        self.metrics = MetricsLog(self.folder.metrics, resume_step=self.done if self.done else None)
        try:
            await stop.unless(self._evaluate("before", only_once=True))
            if self.done < config.steps:
                await self._loops(stop)
            await stop.unless(self._evaluate("after"))
        finally:
            self.inbox.close()
            self.audit.close()
            self.metrics.close()

    async def _loops(self, stop: StopSignal) -> None:
        """Generation, updates and supervision side by side, until the last step, a stop, or the first failure."""
        config = self.config
        size = config.rollout.groups_per_step
        slots = GroupSlots(config.rollout.max_staleness, size, next_index=self.done * size, version=self.done)
        order = TaskOrder(self.train_panel.tasks, config.seed)
        generation = Generation(
            self.run_id, config.rollout.group_size, config.steps * size, self.player, slots, order,
            push=self.inbox.push, note=self._note,
        )  # fmt: skip
        await self._recover(slots, generation)

        def come_round() -> None:
            stop.check()
            if self.endpoint:
                self.endpoint.beat()
            self.view.part(
                "rollouts", f"{self.player.live} trajectories of {len(generation.under_way)} groups under way"
            )

        update = Update(
            self.cluster, self.inbox, slots, self.player, self.busy,
            trajectories=self.folder.trajectories,
            damaged=lambda ids: generation.again(self._index_of(name) for name in ids),
            come_round=come_round, say=self.view.part,
        )  # fmt: skip
        loops = {
            asyncio.create_task(self._steps(update, generation, stop), name="updates"),
            asyncio.create_task(generation.run(), name="generation"),
            asyncio.create_task(self.cluster.watch(), name="supervision"),
        }
        try:
            finished, _ = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
            for loop in finished:
                loop.result()
        except Stopped:
            if self.done > self.committed:
                await self._commit()
            raise
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)

    async def _steps(self, update: Update, generation: Generation, stop: StopSignal) -> None:
        config = self.config
        while self.done < config.steps:
            groups, values = await update.run_step(self.done)
            self.done += 1
            for group in groups:
                self._note("trained", group)
            generation.wake()
            step = StepMetrics(step=self.done, values=values)
            self.metrics.write(step)
            if self.endpoint:
                self.endpoint.observe(step)
            self.view.step(self.done, values)
            if self._checkpoint_is_due(values):
                await self._commit()
            if config.eval.every_steps and self.done % config.eval.every_steps == 0 and self.done < config.steps:
                await stop.unless(self._evaluate("during"))
            stop.check()

    def _checkpoint_is_due(self, values: dict[str, float]) -> bool:
        """Every so many steps, at the end, and before the queue is full: places become free only with a commit."""
        config = self.config
        step_fits = values["queue_depth"] + 2 * config.rollout.groups_per_step <= config.queue.max_groups
        return self.done % config.checkpoint.every_steps == 0 or self.done == config.steps or not step_fits

    async def _commit(self) -> None:
        """State of the learner and of the run, in one atomic step; then the queue may let its entries go."""
        self.view.part("learner", f"saving step {self.done}")
        deadline = self.config.learner.step_timeout_s
        with self.checkpoints.writing(self.done) as path:
            learner = self.cluster.learner
            call = learner.save.remote(str(path / LEARNER_FOLDER))
            await bounded(call, deadline, f"learner: saving step {self.done}")
            await bounded(
                learner.export.remote(str(path / POLICY_FOLDER)), deadline, f"learner: exporting step {self.done}"
            )
            state = {
                "step": self.done,
                "version": self.done,
                "next_group": self.done * self.config.rollout.groups_per_step,
            }
            (path / "state.json").write_text(json.dumps(state) + "\n", encoding="utf-8")
        self.committed = self.done
        self.audit.write("committed", step=self.done)
        await self.inbox.committed()

    async def _recover(self, slots: GroupSlots, generation: Generation) -> None:
        """What the queue holds from an earlier life is trained; what got lost on the way there is made again."""
        first = slots.next_index
        waiting, settled = await self.inbox.recover(first)
        known = range(first, max(waiting, default=first - 1) + 1)
        for index in known:
            slots.adopt(index)
        lost = [index for index in known if index not in waiting]
        generation.again(lost)
        if waiting or settled:
            self.view.note(
                f"the queue holds {len(waiting)} finished groups for the next steps; {len(lost)} between them are "
                f"played again; {settled} were trained and committed already"
            )

    async def _evaluate(self, label: str, *, only_once: bool = False) -> EvalResult | None:
        """Plays the evaluation panel with the weights that are live, says and files the result."""
        panel: Panel = self.eval_panel
        if only_once and any(self.folder.evaluations.glob(f"{panel.name}-*-{label}.json")):
            return None
        tasks = panel.tasks[: self.config.eval.num_tasks or None]
        self.view.part("run", f"evaluating on {len(tasks)} tasks of {panel.name}")
        result = await evaluate(
            self.player, tasks, self.config,
            panel=panel.name, panel_hash=panel.hash, version=self.done, run_id=self.run_id,
        )  # fmt: skip
        for line in lines_of(result, f"{label} (step {self.done})"):
            self.view.note(line)
        await asyncio.to_thread(write_result, result, self.folder.evaluations, label)
        self.view.part("run", "training")
        return result

    def _note(self, event: str, what: TrajectoryGroup | int) -> None:
        """One line of the audit: every group and trajectory is in one committed step, or dropped with a reason."""
        if isinstance(what, int):
            self.audit.write(event, group=group_id(self.run_id, what))
        else:
            names = [trajectory.id for trajectory in what.trajectories]
            self.audit.write(event, group=what.id, trajectories=names, step=self.done)

    def _index_of(self, name: str) -> int:
        return int(name.rsplit("-g", 1)[1])


def innermost(error: BaseException) -> BaseException:
    """The first failure inside nested exception groups: what a person has to know."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _log_to(folder: RunFolder) -> None:
    handler = logging.FileHandler(folder.log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
