"""The learner's Ray shell: one rank in a process of its own.

Owns: `LearnerActor`, how its process is started, how the ranks find each other. Called by the controller, which calls
every rank (`controller.learner_ranks`). Must not know: what the controller does with metrics and weights.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from learner.free_memory import give_back
from learner.settings import Algorithm, LearnerSettings

if TYPE_CHECKING:
    import torch

    from envs.records import TrajectoryGroup
    from envs.weight_checksum import Checksums
    from learner.learner import Learner
    from learner.weight_sender import WeightSender


SHAPE_CACHES = {"LRU_CACHE_CAPACITY": "64", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64"}
"""In bfloat16 on a CPU, torch and oneDNN each keep compiled kernels for the last 1024 shapes. Batches of trajectories
hardly ever have the same shape twice: the caches fill with what is never used again, about 12 MB a batch."""


def gpus_a_rank(settings: LearnerSettings, gpus: float) -> int:
    """1 or 0, when the cluster has `gpus`. ValueError when GPUs are wanted and too few."""
    if settings.device == "cpu":
        return 0
    if gpus >= settings.num_ranks:
        return 1
    if settings.device == "gpu":
        raise ValueError(
            f'learner.device = "gpu": {settings.num_ranks} ranks need a GPU each, Ray has {gpus:g}; lower '
            'learner.num_ranks, or set learner.device to "cpu"'
        )
    return 0


def actor_options(settings: LearnerSettings, num_gpus: int = 0) -> dict[str, Any]:
    """Options for `LearnerActor.options(**…)`: threads are fixed before torch is imported."""
    threads = str(settings.num_threads)
    environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    if num_gpus == 0:
        environment |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", **SHAPE_CACHES}
    return {
        "num_cpus": settings.num_threads,
        "num_gpus": num_gpus,
        "max_restarts": 0,
        "runtime_env": {"env_vars": environment},
    }


# Not restarted by Ray: a fresh learner has lost its optimizer state. The controller starts it again from
# the last checkpoint.
@ray.remote(max_restarts=0, concurrency_groups={"health": 1})
class LearnerActor:
    """`Learner` in a process of its own, once it was told to `start`; same methods, see there."""

    def __init__(
        self,
        model_path: str,
        settings: LearnerSettings,
        algorithm: Algorithm,
        seed: int,
        *,
        num_steps: int = 0,
        rank: int = 0,
    ) -> None:
        self._arguments: tuple[Any, ...] = (model_path, settings, algorithm, seed)
        self._options: dict[str, Any] = {"num_steps": num_steps, "rank": rank}
        self._world_size = settings.num_ranks
        self._store: torch.distributed.Store | None = None
        self._learner: Learner
        self._handed_out: dict[str, torch.Tensor] = {}
        self._sender: WeightSender | None = None

    def host(self) -> str:
        """The address of the machine that it runs on."""
        return str(ray.util.get_node_ip_address())

    @ray.method(concurrency_group="health")
    def status(self) -> dict[str, Any]:
        """Answers beside whatever it is doing: the process lives."""
        return {"pid": os.getpid()}

    def open_rendezvous(self, address: str) -> int:
        """Rank 0: the port on `address`, this machine's, at which the ranks meet."""
        from learner.engine import open_rendezvous

        store = open_rendezvous(address, self._world_size)
        self._store = store
        return int(store.port)

    def start(self, address: str, port: int) -> int:
        """Meets the other ranks and loads the model: returns the number of updates so far, 0."""
        from learner.learner import Learner

        self._learner = Learner(
            *self._arguments, **self._options, world_size=self._world_size, address=address, port=port,
            store=self._store,
        )  # fmt: skip
        return self._learner.updates

    def ready(self) -> int:
        """Returns once everything asked for before is done: the number of updates so far."""
        return self._learner.updates

    def train_step(self, groups: list[TrajectoryGroup], version: int) -> dict[str, float]:
        values = self._learner.train_step(groups, version)
        give_back()
        return values

    def weights(self) -> dict[str, torch.Tensor]:
        self._handed_out = self._learner.weights()
        return self._handed_out

    def gpu(self) -> str:
        """The unique id of its GPU; empty without one."""
        from learner.weight_sender import gpu_id

        return gpu_id()

    def checksums(self) -> Checksums:
        """Of the weights that were handed out last."""
        from learner.weight_sender import weight_checksums

        return weight_checksums(self._handed_out)

    def open_channel(self, address: str, port: int, num_ranks: int) -> None:
        """Rank 0: opens an NCCL channel to the engines at `address`:`port`, in place of the one before."""
        from learner.weight_sender import WeightSender

        if self._sender is not None:
            self._sender.close()
        self._sender = WeightSender(address, port, num_ranks)

    def weight_shapes(self) -> tuple[list[str], list[str], list[list[int]]]:
        """Names, formats and shapes of the weights that were handed out last."""
        from learner.weight_sender import shapes_of

        return shapes_of(self._handed_out)

    def send_weights(self) -> None:
        """Rank 0: broadcasts the weights that were handed out last over the channel."""
        if self._sender is None:
            raise RuntimeError("no channel to send weights over: open_channel comes first")
        self._sender.send(self._handed_out)

    def save(self, folder: str) -> None:
        self._learner.save(Path(folder))

    def load(self, folder: str) -> None:
        self._learner.load(Path(folder))

    def export(self, folder: str) -> None:
        self._learner.export(Path(folder))
