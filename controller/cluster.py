"""The actors of one run on this machine: created together, watched, replaced when they die, ended together.

Owns: Ray's session, every actor handle, how each part is started and replaced; `controller.supervision` finds the dead
ones, `controller.publication` gives the servers new weights. Called by `controller.train` and `controller.evaluate`.
Must not know: groups, the queue, checkpoints, or what is trained.

Who restarts whom: an environment actor and an inference actor are replaced here (found by `watch`, or at once when
a caller reports a death); a router is restarted by Ray and told again which servers there are; a dead
learner ends this life of the run, because its state can only come from a checkpoint: the next life begins with that.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from actors.busy_spans import Span
from controller.causes import cause_of
from controller.config import RunConfig
from controller.deadline import DeadlineError, bounded
from controller.heartbeat import beside
from controller.joined_session import session_for
from controller.learner_ranks import LearnerLost, LearnerRanks, is_lost
from controller.metric_targets import write_targets
from controller.part_actors import PartActors
from controller.part_settings import inference_settings
from controller.publication import Publication
from controller.replacements import PartLost, Replacements
from controller.router_keeper import RouterKeeper
from controller.supervision import Supervision

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

OBJECT_STORE_BYTES = 512 * 2**20
"""Ray's object store beside the weights (which are there twice while they change): groups on their way."""

BUSY_TIMEOUT_S = 10.0
"""A number for people is not worth a longer wait."""


class Cluster:
    """`start`, use the handles, `stop`. All methods are called from one event loop."""

    def __init__(
        self,
        config: RunConfig,
        policy: Path,
        *,
        run_folder: Path | None,
        with_learner: bool,
        say: Callable[[str, str], None] = lambda part, doing: None,
        actors: PartActors | None = None,
    ) -> None:
        """`say(part, doing)` is told what each part does while it starts: for the live view."""
        self.actors = actors or PartActors(config, policy)
        self._say = say
        self.config = config
        self.policy = policy
        self.inference: dict[str, Any] = {}
        self.env: dict[str, Any] = {}
        self.leaving: set[str] = set()
        """Environment actors that are given no more trajectories."""
        self.routers: list[Any] = []
        """Which one a group has: `actors.home_router`."""
        self.learner: LearnerRanks
        self.status: dict[str, dict[str, Any]] = {}
        self.trains = with_learner
        self._run_folder = run_folder
        self._noting = asyncio.Lock()
        model_bytes = sum(file.stat().st_size for file in policy.glob("*.safetensors"))
        self._session = session_for(config.cluster.address, run_folder, OBJECT_STORE_BYTES + 3 * model_bytes)
        self.replacements = Replacements(config.supervision)
        self.keepers: list[RouterKeeper] = []
        self.publication = Publication(self)

    @property
    def restarts(self) -> Counter[str]:
        """By part, in all lives of the run."""
        return self.replacements.restarts

    async def start(self) -> None:
        """Brings every part up at the same time. Raises with the part's name when one of them fails."""
        self._say("ray", "starting")
        await bounded(asyncio.to_thread(self._session.start), self._start_timeout_s, "ray: starting")
        self._say("ray", "up")
        try:
            await beside(self._start_parts(), Supervision(self).watch_ray())
        except Exception as error:  # the boundary that stops
            # Every actor dies with its raylet, and whichever is noticed first is not the cause.
            if problem := self.ray_problem(self.config.supervision.ping_timeout_s):
                raise PartLost(problem) from error
            raise

    async def _start_parts(self) -> None:
        await asyncio.to_thread(self.actors.check_places, self.trains)
        names = [f"inference-{index}" for index in range(self.config.inference.num_servers)]
        self.inference = {name: self.actors.inference() for name in names}
        self.routers = [self.actors.router(index) for index in range(self.config.rollout.num_routers)]
        sampling = self.actors.sampling()
        self.keepers = [self._keeper(index, sampling) for index in range(len(self.routers))]
        self.env = {f"env-{index}": self.new_env() for index in range(self.config.rollout.num_env_actors)}
        starts = [self.start_inference(name, actor) for name, actor in self.inference.items()]
        starts += [self.start_env(name, actor) for name, actor in self.env.items()]
        starts += [self._up(keeper.name, keeper.introduce(), self._start_timeout_s) for keeper in self.keepers]
        if self.trains:
            starts.append(self._start_learner())
        async with asyncio.TaskGroup() as group:
            for start in starts:
                group.create_task(start)
        await self.note_targets()
        if self.trains:
            await self.publication.choose_route()

    def _keeper(self, index: int, sampling: Mapping[str, Any]) -> RouterKeeper:
        """The keeper of that router."""
        return RouterKeeper(
            f"router-{index}", self.routers[index], self.inference, sampling, self.replacements, self._start_timeout_s,
            self.config.supervision.ping_timeout_s,
        )  # fmt: skip

    def new_env(self) -> Any:
        """Another environment actor, which has still to be started."""
        return self.actors.env(tuple(self.routers))

    async def tell_routers(self, name: str, actor: Any | None) -> None:
        """Which inference server there is under `name` now."""
        await asyncio.gather(*(keeper.tell(name, actor) for keeper in self.keepers))

    @property
    def _start_timeout_s(self) -> float:
        """Every process imports torch or Ray, and they all do it at the same time: the engine's deadline is theirs."""
        return self.config.inference.start_timeout_s

    async def start_inference(self, name: str, actor: Any) -> None:
        """Returns when its engine is up, with the weights of the start policy."""
        config = self.config
        settings = inference_settings(config, name, trains=self.trains)
        call = actor.start.remote(str(self.policy), settings, config.tti, config.seed)
        await self._up(name, call, self._start_timeout_s, "starting engine")

    async def note_targets(self) -> None:
        """Writes down where the engines that there are, and Ray, serve metrics of their own."""
        if self._run_folder is None or not self.trains:
            return
        async with self._noting:  # engines join side by side
            names = sorted(self.inference)
            engines = {name: inference_settings(self.config, name, trains=True).metrics_port for name in names}
            try:
                ray = await asyncio.wait_for(asyncio.to_thread(self._session.metrics_addresses), BUSY_TIMEOUT_S)
            except TimeoutError:
                logger.info("Ray did not say in %s s where its metrics are", BUSY_TIMEOUT_S)
                ray = []
            await asyncio.to_thread(write_targets, self._run_folder, engines, ray)

    async def start_env(self, name: str, actor: Any) -> None:
        """Returns when it answers."""
        await self._up(name, actor.status.remote(), self._start_timeout_s)

    async def _start_learner(self) -> None:
        self.learner = self.actors.learner()
        starting = self.learner.start(self._start_timeout_s)
        await self._up("learner", starting, 2 * self._start_timeout_s, "starting: its ranks meet and load the model")

    async def _up(self, name: str, call: Awaitable[Any], timeout_s: float, doing: str = "starting") -> None:
        started = time.monotonic()
        self._say(name, doing)
        try:
            await bounded(call, timeout_s, f"{name}: starting")
        except DeadlineError:
            raise
        except Exception as error:  # the boundary that stops: the part's name is added to whatever it died of
            raise PartLost(f"{name} did not start: {cause_of(error)}") from error
        logger.info("%s is up after %.1f s", name, time.monotonic() - started)
        self._say(name, "up")

    async def ask_learner(self, call: Awaitable[Result], what: str) -> Result:
        """The learner's answer to `call`. Its failure ends the run, its death (LearnerLost) this life of it: only a
        checkpoint has its state."""
        try:
            return await bounded(call, self.config.learner.step_timeout_s, f"learner: {what}")
        except Exception as error:  # the boundary that stops
            self.learner.end()  # a rank that waits for another would not end by itself
            lost = LearnerLost if isinstance(error, DeadlineError) or is_lost(error) else PartLost
            raise lost(f"learner failed while {what}: {cause_of(error)}") from error

    async def learner_weights(self, version: int) -> Any:
        """A reference to the learner's weights. The learner has made them when this returns: later it may die."""
        weights = self.learner.weights.remote()
        await self.ask_learner(self.learner.ready.remote(), f"handing out the weights of version {version}")
        return weights

    async def revive_inference(self, name: str, dead: Any, cause: str) -> None:
        """Replaces an inference actor, with the newest weights. Does nothing when somebody else was faster."""

        async def start() -> None:
            await self.tell_routers(name, None)
            await self.end(name, self.inference[name])  # the dead one, or an earlier replacement that did not come up
            self.inference[name] = self.actors.inference()
            await self.start_inference(name, self.inference[name])
            await self.publication.bring_up_to_date(name, self.inference[name])
            await self.tell_routers(name, self.inference[name])
            await self.note_targets()  # it may be on another machine

        await self.replacements.replace(name, lambda: self.inference.get(name) is dead, start, cause)

    async def end(self, name: str, actor: Any) -> None:
        """Kills an actor and what it had started."""
        self.actors.kill(actor)
        if status := self.status.pop(name, None):  # of the dead one; what starts now has none yet
            await asyncio.to_thread(self._session.end_children_of, status["pid"])

    async def revive_env(self, name: str, dead: Any, cause: str) -> None:
        """Replaces an environment actor; its trajectories are continued by whoever asked for them."""

        async def start() -> None:
            self.actors.kill(self.env[name])
            self.status.pop(name, None)
            self.env[name] = self.new_env()
            await self.start_env(name, self.env[name])

        await self.replacements.replace(name, lambda: self.env.get(name) is dead, start, cause)

    async def busy_spans(self) -> list[tuple[str, list[Span]]]:
        """(part, its spans) of every engine and environment actor, since this was last asked.

        One that is being replaced or does not answer is left out: its share of this step is too small then.
        """

        async def ask(part: str, name: str, actor: Any) -> tuple[str, list[Span]]:
            try:
                call = actor.busy_spans.remote()
                return part, await bounded(call, BUSY_TIMEOUT_S, f"{name}: busy spans")
            except Exception as error:  # the boundary that restarts: the supervision does it
                logger.info("%s", cause_of(error))
                return part, []

        actors = [("generation", name, actor) for name, actor in self.inference.items()]
        actors += [("environments", name, actor) for name, actor in self.env.items()]
        return await asyncio.gather(*(ask(*one) for one in actors if not self.replacements.under_way(one[1])))

    async def guarded(self, work: Awaitable[Result]) -> Result:
        """The result of `work`, with every part watched meanwhile; a part that cannot be replaced ends it."""
        return await beside(work, self.watch())

    def ray_problem(self, patience_s: float) -> str:
        """What is wrong with Ray's own servers for longer than `patience_s`; empty when nothing is."""
        return self._session.problem(patience_s)

    async def watch(self) -> None:
        """Pings every part until cancelled; replaces the dead ones. Runs beside the loop."""
        await Supervision(self).watch()

    async def stop(self) -> None:
        """Ends every part; no process is left. Engines get a moment to end by themselves."""
        stops = [actor.stop.remote() for actor in self.inference.values()]
        for name, call in zip(self.inference, stops, strict=True):
            try:
                await bounded(call, 10.0, f"{name}: stopping")
            except Exception as error:  # the boundary that stops: what does not end by itself is killed below
                logger.info("%s", cause_of(error))
        await asyncio.to_thread(self._session.stop)
