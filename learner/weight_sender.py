"""The learner's end of a weight update: checksums of what it hands out, and the broadcast over NCCL.

Owns: `weight_checksums`, `WeightSender`. Called by `learner.learner_actor`. Must not know: engines' processes,
versions, where the weights come from.

The sender is vLLM 0.32's trainer side of its `nccl` transfer, unchanged; `actors.weight_channel` is the other end. vLLM
would have the trainer call the engines; here the controller does, which also pauses and watches them, so the sender's
client does nothing. Written against vLLM's interface and tested without GPUs; it has not run on GPUs yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from envs.weight_checksum import Checksums, checksum_of

if TYPE_CHECKING:
    from vllm.distributed.weight_transfer.base import WeightSource


class WeightSenderError(RuntimeError):
    """Weights that cannot be sent; names what is missing."""


def weight_checksums(weights: Mapping[str, torch.Tensor]) -> Checksums:
    """As `actors.weight_transfer` sums up what arrives: by the bytes of each tensor in its own format."""
    found = {}
    for name, tensor in weights.items():
        content = tensor.detach().contiguous().view(-1).view(torch.uint8).to("cpu").numpy()
        found[name] = checksum_of(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), content)
    return found


def shapes_of(weights: Mapping[str, torch.Tensor]) -> tuple[list[str], list[str], list[list[int]]]:
    """Names, formats and shapes in the order in which they are sent: what the engines are told beforehand."""
    return (
        list(weights),
        [str(tensor.dtype).removeprefix("torch.") for tensor in weights.values()],
        [list(tensor.shape) for tensor in weights.values()],
    )


def gpu_id() -> str:
    """This process's GPU by its unique id; empty without one."""
    return str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid) if torch.cuda.is_available() else ""


class NoCalls:
    """What vLLM's sender calls the engines by: the controller does that."""

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None: ...

    def start_weight_update(self) -> None: ...

    def update_weights(self, update_info: Any) -> None: ...

    def finish_weight_update(self, weight_version: str | None = None) -> None: ...


def weight_source(current: dict[str, torch.Tensor]) -> WeightSource:
    """vLLM's view of `current`, which is read anew each time it is sent; tensors go to the GPU one by one."""
    from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource

    class Source(WeightSource):
        def metadata(self) -> list[ParamMeta]:
            return [ParamMeta(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in current.items()]

        def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            for name, tensor in current.items():
                yield name, tensor.to(device)

    return Source()


class WeightSender:
    """Rank 0 of a channel. A new one is made whenever the engines change."""

    def __init__(self, address: str, port: int, num_ranks: int) -> None:
        """Opens the meeting place at `address`:`port` and waits there for the other `num_ranks` - 1."""
        from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

        self._current: dict[str, torch.Tensor] = {}
        info = NCCLTrainerInitInfo(master_address=address, master_port=port, world_size=num_ranks, rank=0)
        self._engine = WeightTransferTrainerFactory.trainer_init(
            info, client=NoCalls(), source=weight_source(self._current)
        )

    def send(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Broadcasts `weights`; returns when they are on their way for good. The engines receive at the same time."""
        if not weights:
            raise WeightSenderError("no weights to send: only the first rank of the learner has them")
        self._current.update(weights)
        try:
            self._engine.send_weights()
        finally:
            self._current.clear()

    def close(self) -> None:
        self._engine.shutdown()
