"""Weights into a running vLLM engine on a GPU: vLLM's own NCCL engine, that can also load a file.

Owns: the engine, and what the two sides of a channel must agree on. vLLM's worker builds `ChannelEngine` by the name
`BACKEND`; `actors.weight_update` opens the channel and receives over it. Importing this module registers the engine.
Must not know: who sends, versions, requests.

On the wire it is vLLM 0.32's `nccl` engine, unchanged: `learner.weight_sender` broadcasts to all engines at once with
vLLM's trainer side. What is added: each engine is a rank of its own (`rank_offset`), checksums of what arrives, a
check that every weight arrived, and a file as the other way in (`SharedFileEngine`): a server that was replaced comes
up with the newest weights before the channel is opened again.

Written against vLLM 0.32's interface and tested with a communicator of our own; it has not run on GPUs yet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.distributed.weight_transfer.nccl_engine import (
    NCCLWeightTransferEngine,
    NCCLWeightTransferInitInfo,
    NCCLWeightTransferUpdateInfo,
)

from actors.weight_transfer import SharedFileEngine, SharedFileUpdate, check_complete, witnessed
from envs.weight_checksum import Checksums

BACKEND = "t2po_nccl"


@dataclass
class ChannelUpdate(NCCLWeightTransferUpdateInfo):
    """Over the channel: names, formats and shapes of all weights, in the order in which they are sent. From a file:
    `path` alone."""

    names: list[str] = field(default_factory=list)
    dtype_names: list[str] = field(default_factory=list)
    shapes: list[list[int]] = field(default_factory=list)
    path: str = ""
    verify: bool = False


def channel_init(address: str, port: int, rank: int, num_ranks: int) -> dict[str, Any]:
    """What an engine is told to join as `rank` of `num_ranks`; rank 0 is the sender, at `address`:`port`."""
    return {
        "master_address": address,
        "master_port": port,
        "rank_offset": rank,
        "world_size": num_ranks,
        "packed": True,  # as vLLM's sender does it by default; the sizes of the buffers are both sides' default
    }


def bytes_of(dtype_names: list[str], shapes: list[list[int]]) -> int:
    """How much travels to one engine, bytes."""
    sizes = [getattr(torch, name).itemsize for name in dtype_names]
    return sum(size * math.prod(shape) for size, shape in zip(sizes, shapes, strict=True))


class _Witness:
    """The model for as long as an update lasts: notes what is loaded into it."""

    def __init__(self, model: Any, arrived: Checksums | None) -> None:
        self._model = model
        self._arrived = arrived
        self.loaded: set[str] = set()

    def load_weights(self, weights: Any) -> set[str]:
        loaded: set[str] = set(self._model.load_weights(witnessed(weights, self._arrived)))
        self.loaded |= loaded
        return loaded


class ChannelEngine(NCCLWeightTransferEngine):
    """Receives all weights of a version, over NCCL or from a file."""

    init_info_cls = NCCLWeightTransferInitInfo
    update_info_cls = ChannelUpdate
    supports_draft_weight_update = False
    model: Any
    arrived: Checksums | None = None
    """Of the last update; null when it was not to be verified."""

    def receive_weights(self, update_info: ChannelUpdate) -> None:
        if update_info.path:
            file = SharedFileUpdate(path=update_info.path, verify=update_info.verify)
            SharedFileEngine.receive_weights(self, file)  # type: ignore[arg-type]
            return
        self.arrived = {} if update_info.verify else None
        model, witness = self.model, _Witness(self.model, self.arrived)
        self.model = witness
        try:
            super().receive_weights(update_info)
            torch.accelerator.synchronize()
        finally:
            self.model = model
        check_complete(model, witness.loaded, self._tied)

    @property
    def _tied(self) -> bool:
        return bool(getattr(self.model_config.hf_text_config, "tie_word_embeddings", False))


if BACKEND not in WeightTransferEngineFactory._registry:
    WeightTransferEngineFactory.register_engine(BACKEND, ChannelEngine)
