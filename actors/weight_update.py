"""New weights into a running engine: the protocol of one update, over a file or over the NCCL channel.

Owns: `UpdateReport`, the steps of an update in vLLM's words, how long decoding stands still. Called by
`actors.inference`, which decides when an update may begin and what becomes of the server when it breaks. Must not know:
requests, states, who made the weights.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from actors.engine import InferenceError
from envs.weight_checksum import Checksums

if TYPE_CHECKING:
    import torch
    from vllm.v1.engine.async_llm import AsyncLLM


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateReport:
    """One weight update: the version that is live now, its size, how long it took and how long decoding stood still.

    `checksums`: of every tensor as it arrived in the engine, when the update was to be verified.
    """

    version: int
    bytes: int
    seconds: float
    pause_seconds: float
    checksums: Checksums | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightOffer:
    """Weights that wait to be taken. `info` is the update of the engine's transfer engine; `size` in bytes; `began`:
    when the update began, by the monotonic clock."""

    info: dict[str, Any]
    size: int
    began: float


@asynccontextmanager
async def offer_file(weights: dict[str, torch.Tensor], verify: bool) -> AsyncIterator[WeightOffer]:
    """`weights` in a file in shared memory for as long as the update lasts."""
    from actors.weight_transfer import write_weights

    began = time.monotonic()
    path, size = await asyncio.to_thread(write_weights, weights)
    try:
        yield WeightOffer(info={"path": str(path), "verify": verify}, size=size, began=began)
    finally:
        path.unlink(missing_ok=True)


def offer_broadcast(names: list[str], dtype_names: list[str], shapes: list[list[int]], verify: bool) -> WeightOffer:
    """Weights that the sender broadcasts over the channel at the same time."""
    from actors.weight_channel import bytes_of

    info = {"names": names, "dtype_names": dtype_names, "shapes": shapes, "verify": verify}
    return WeightOffer(info=info, size=bytes_of(dtype_names, shapes), began=time.monotonic())


async def join_channel(
    engine: AsyncLLM, address: str, port: int, rank: int, num_ranks: int, *, leave_first: bool
) -> None:
    """The engine joins as `rank`; returns when every rank has. `leave_first`: it is in a channel already."""
    from vllm.distributed.weight_transfer.base import WeightTransferInitRequest

    from actors.weight_channel import channel_init

    if leave_first:
        await engine.shutdown_weight_transfer_engine()
    request = WeightTransferInitRequest(init_info=channel_init(address, port, rank, num_ranks))
    await engine.init_weight_transfer_engine(request)


async def take_weights(engine: AsyncLLM, offer: WeightOffer, version: int) -> UpdateReport:
    """The engine holds what is offered, as `version`; requests in flight stand still meanwhile and then go on."""
    from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

    began = time.monotonic()
    await engine.pause_generation(mode="keep", clear_cache=False)
    await engine.start_weight_update()
    await engine.update_weights(WeightTransferUpdateRequest(update_info=offer.info))
    await engine.finish_weight_update(weight_version=str(version))
    live = await engine.get_weight_version()
    if live != str(version):
        raise InferenceError(f"the engine reports version {live!r} after the update to {version}")
    await engine.resume_generation()
    now = time.monotonic()
    return UpdateReport(
        version=version,
        bytes=offer.size,
        seconds=now - offer.began,
        pause_seconds=now - began,
        checksums=await _arrived(engine, version) if offer.info["verify"] else None,
    )


async def _arrived(engine: AsyncLLM, version: int) -> Checksums:
    by_worker: list[Checksums] = await engine.collective_rpc("t2po_arrived")
    if any(other != by_worker[0] for other in by_worker):
        raise InferenceError(f"the workers of one engine received different weights as version {version}")
    return by_worker[0]
