"""Weights into a running vLLM engine: the registered transfer engine, over a file in shared memory.

Owns: the file's life, the reload of packed weights, the cure of the tied output head, the checksums of what arrived.
`write_weights` is called by `actors.weight_update`; vLLM's worker builds `SharedFileEngine` by the name `BACKEND`.
Importing this module registers it. Must not know: where the weights come from, versions, requests.
`actors.weight_channel` is the same over NCCL, on GPUs.

Why a file: the weights arrive in the inference actor (Ray's object store), the model lives in another process that
vLLM started. A file under /dev/shm is memory that both can map; vLLM's own messages would copy it three times.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

from envs.weight_checksum import Checksums, checksum_of

BACKEND = "t2po_shared_file"
_SHARED_MEMORY = Path("/dev/shm")


class WeightTransferError(RuntimeError):
    """Weights that do not fit the model, or a transfer that broke half-way."""


def write_weights(weights: dict[str, torch.Tensor]) -> tuple[Path, int]:
    """Puts the weights into a new file that the engine can map: (path, bytes). The caller deletes it."""
    if not weights:
        raise WeightTransferError("weight update: no weights were given; pass the learner's full state dict")
    size = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    folder = _SHARED_MEMORY if _SHARED_MEMORY.is_dir() else Path(tempfile.gettempdir())
    free = shutil.disk_usage(folder).free
    if free < size * 1.01 + 2**20:
        raise WeightTransferError(
            f"weight update: {size} bytes do not fit into {folder} ({free} bytes free); enlarge the shared memory"
        )
    handle, name = tempfile.mkstemp(prefix=f"t2po-weights-{os.getpid()}-", suffix=".safetensors", dir=folder)
    os.close(handle)
    try:
        save_file({key: tensor.detach().contiguous() for key, tensor in weights.items()}, name)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name), size


@dataclass
class SharedFileInit(WeightTransferInitInfo):
    """Nothing has to be agreed beforehand."""


@dataclass
class SharedFileUpdate(WeightTransferUpdateInfo):
    """One complete set of weights, under Hugging Face names. `verify`: keep the checksums of what arrives."""

    path: str
    verify: bool = False


class SharedFileEngine(WeightTransferEngine[SharedFileInit, SharedFileUpdate]):
    """Loads a file of Hugging Face weights into the live model."""

    init_info_cls = SharedFileInit
    update_info_cls = SharedFileUpdate
    supports_draft_weight_update = False
    arrived: Checksums | None = None
    """Of the last update; null when it was not to be verified."""

    def init_transfer_engine(self, init_info: SharedFileInit) -> None:
        """Nothing to set up."""

    def start_weight_update(self) -> None:
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        with torch.device(self.device):
            initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: SharedFileUpdate) -> None:
        self.arrived = {} if update_info.verify else None
        with safe_open(update_info.path, framework="pt") as file, torch.device(self.device):
            model: Any = self.model
            tensors = ((name, file.get_tensor(name)) for name in list(file.keys()))
            loaded = model.load_weights(witnessed(tensors, self.arrived))
        check_complete(self.model, set(loaded), self._tied)

    def finish_weight_update(self) -> None:
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        with torch.device(self.device):
            finalize_layerwise_reload(self.model, self.model_config)
        self._refresh_tied_head()

    @property
    def _tied(self) -> bool:
        return bool(getattr(self.model_config.hf_text_config, "tie_word_embeddings", False))

    def _refresh_tied_head(self) -> None:
        """vLLM packs a copy of the output head for the CPU; of a tied head it does not renew that copy."""
        head = getattr(self.model, "lm_head", None)
        if self._tied and head is not None and self.device.type == "cpu":
            from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

            dispatch_cpu_unquantized_gemm(head, remove_weight=False)

    def shutdown(self) -> None:
        """Nothing is held between updates."""


def witnessed(
    tensors: Iterable[tuple[str, torch.Tensor]], arrived: Checksums | None
) -> Iterator[tuple[str, torch.Tensor]]:
    """`tensors` as they pass to the model, each one's checksum noted in `arrived`."""
    for name, tensor in tensors:
        if arrived is not None:
            arrived[name] = tensor_checksum(name, tensor)
        yield name, tensor


def tensor_checksum(name: str, tensor: torch.Tensor) -> int:
    """`learner.weight_sender` sums up what it sends in the same way."""
    content = tensor.detach().contiguous().view(-1).view(torch.uint8).to("cpu").numpy()
    return checksum_of(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), content)


def check_complete(model: torch.nn.Module, loaded: set[str], tied: bool) -> None:
    """A weight that the update lacks would silently stay as it was."""
    expected = {name for name, _ in model.named_parameters()}
    if tied:
        expected = {name for name in expected if not name.startswith("lm_head.")}
    if missing := sorted(expected - loaded):
        raise WeightTransferError(
            f"weight update: {len(missing)} of {len(expected)} weights were not given, such as {missing[:3]}; "
            "pass every weight under its Hugging Face name"
        )


if BACKEND not in WeightTransferEngineFactory._registry:
    WeightTransferEngineFactory.register_engine(BACKEND, SharedFileEngine)
