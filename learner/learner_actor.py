"""The learner's Ray shell.

Owns: `LearnerActor` and how its process is started. Called by the controller. Must not know: what the
controller does with metrics and weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from learner.settings import AdvantageSettings, LearnerSettings

if TYPE_CHECKING:
    import torch

    from envs.records import TrajectoryGroup


def actor_options(settings: LearnerSettings, num_gpus: int = 0) -> dict[str, Any]:
    """Options for `LearnerActor.options(**…)`: threads are fixed before torch is imported."""
    threads = str(settings.num_threads)
    environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    if num_gpus == 0:
        environment["DS_ACCELERATOR"] = "cpu"
    return {
        "num_cpus": settings.num_threads,
        "num_gpus": num_gpus,
        "max_restarts": 0,
        "runtime_env": {"env_vars": environment},
    }


# Not restarted by Ray: a fresh learner has lost its optimizer state. The controller starts it again from
# the last checkpoint.
@ray.remote(max_restarts=0)
class LearnerActor:
    """`Learner` in a process of its own; same methods, see there."""

    def __init__(
        self,
        model_path: str,
        settings: LearnerSettings,
        advantage: AdvantageSettings,
        seed: int,
        filter_void_turns: bool = False,
    ) -> None:
        from learner.learner import Learner

        self._learner = Learner(model_path, settings, advantage, seed, filter_void_turns=filter_void_turns)

    def ready(self) -> int:
        """Returns once the model is loaded: the number of updates so far."""
        return self._learner.updates

    def train_step(self, groups: list[TrajectoryGroup], version: int) -> dict[str, float]:
        return self._learner.train_step(groups, version)

    def weights(self) -> dict[str, torch.Tensor]:
        return self._learner.weights()

    def save(self, folder: str) -> None:
        self._learner.save(Path(folder))

    def load(self, folder: str) -> None:
        self._learner.load(Path(folder))

    def export(self, folder: str) -> None:
        self._learner.export(Path(folder))
