"""The actors of one run, made one at a time: which class, with which of Ray's options, told what.

Owns: that, and ending an actor. Called by `controller.cluster`. Must not know: how many there are, whether
they live. The classes are imported when the first of them is made: Ray reads its environment at its import,
and `controller.ray_session` sets it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from controller import placement
from controller.actor_places import ActorPlaces
from controller.config import RunConfig
from controller.learner_ranks import LearnerRanks
from controller.part_settings import learner_algorithm, play_settings, router_settings, sampling_specs, turn_timeout_s

ROUTER_GRACE_S = 30.0
"""An environment actor waits so much longer for a turn than the router does, so that the router says why."""


class PartActors:
    """Each call makes another actor. None asks Ray for cores: the machine's are shared by hand (`num_threads`)."""

    def __init__(self, config: RunConfig, policy: Path) -> None:
        self._config = config
        self._policy = policy
        self._places = ActorPlaces(config)

    def check_places(self, with_learner: bool) -> None:
        """Whether every actor of the run finds a place in the cluster that it joined; PlacementError. In a private Ray
        every actor does."""
        config = self._config
        counts = {"env": config.rollout.num_env_actors, "inference": config.inference.num_servers}
        counts["head"] = config.rollout.num_routers
        if with_learner:
            counts["learner"] = config.learner.num_ranks
        self.check_more(counts)

    def check_more(self, counts: Mapping[str, int]) -> None:
        """Whether so many more actors, by role ("env", "inference"), find a place; PlacementError."""
        self._places.check(counts)

    def inference(self) -> Any:
        """It has still to be started: `start.remote(...)`."""
        from actors.inference_actor import InferenceActor

        options = self._places.options("inference")
        return self._places.note(InferenceActor.options(num_cpus=0, **options).remote(), options)

    def router(self, index: int) -> Any:
        from controller.router_actor import RouterActor

        return RouterActor.options(**self._places.options("head")).remote(router_settings(self._config, index))

    def env(self, routers: tuple[Any, ...]) -> Any:
        from actors.env_actor import EnvActor

        patience_s = turn_timeout_s(self._config) + ROUTER_GRACE_S
        options = self._places.options("env")
        settings = play_settings(self._config)
        actor = EnvActor.options(**options).remote(settings, str(self._policy), routers, patience_s)
        return self._places.note(actor, options)

    def learner(self) -> LearnerRanks:
        """Its ranks have still to be started: `start(...)`."""
        import ray

        from learner.learner_actor import LearnerActor, actor_options, gpus_a_rank

        config = self._config
        if config.cluster.address:
            num_gpus = int(self._places.asked("learner").get(placement.GPU, 0))
        else:
            num_gpus = gpus_a_rank(config.learner, ray.cluster_resources().get("GPU", 0.0))
        options = {**actor_options(config.learner, num_gpus), "num_cpus": 0}
        ranks = []
        for rank in range(config.learner.num_ranks):
            place = self._places.options("learner")
            actor = LearnerActor.options(**{**options, **place}).remote(
                str(self._policy),
                config.learner,
                learner_algorithm(config),
                config.seed,
                num_steps=config.steps,
                rank=rank,
            )
            ranks.append(self._places.note(actor, place))
        return LearnerRanks(ranks, put=ray.put, kill=self.kill)

    def sampling(self) -> dict[str, Any]:
        """By reference: what the router only passes on, it need not be able to read (the class imports torch)."""
        import ray

        return {name: ray.put(spec) for name, spec in sampling_specs(self._config).items()}

    def kill(self, actor: Any) -> None:
        import ray

        self._places.forget(actor)
        ray.kill(actor)
