"""The actors of one run, made one at a time: which class, with which of Ray's options, told what.

Owns: that, and ending an actor. Called by `controller.cluster`. Must not know: how many there are, whether
they live. The classes are imported when the first of them is made: Ray reads its environment at its import,
and `controller.ray_session` sets it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

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

    def inference(self) -> Any:
        """It has still to be started: `start.remote(...)`."""
        from actors.inference_actor import InferenceActor

        return InferenceActor.options(num_cpus=0).remote()

    def router(self) -> Any:
        from controller.router_actor import RouterActor

        return RouterActor.remote(router_settings(self._config))

    def env(self, router: Any) -> Any:
        from actors.env_actor import EnvActor

        patience_s = turn_timeout_s(self._config) + ROUTER_GRACE_S
        return EnvActor.remote(play_settings(self._config), str(self._policy), router, patience_s)

    def learner(self) -> LearnerRanks:
        """Its ranks have still to be started: `start(...)`."""
        import ray

        from learner.learner_actor import LearnerActor, actor_options, gpus_a_rank

        config = self._config
        num_gpus = gpus_a_rank(config.learner, ray.cluster_resources().get("GPU", 0.0))
        options = {**actor_options(config.learner, num_gpus), "num_cpus": 0}
        ranks = [
            LearnerActor.options(**options).remote(
                str(self._policy),
                config.learner,
                learner_algorithm(config),
                config.seed,
                num_steps=config.steps,
                rank=rank,
            )
            for rank in range(config.learner.num_ranks)
        ]
        return LearnerRanks(ranks, put=ray.put, kill=self.kill)

    def sampling(self) -> dict[str, Any]:
        """By reference: what the router only passes on, it need not be able to read (the class imports torch)."""
        import ray

        return {name: ray.put(spec) for name, spec in sampling_specs(self._config).items()}

    def kill(self, actor: Any) -> None:
        import ray

        ray.kill(actor)
