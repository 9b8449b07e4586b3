"""The DeepSpeed engine: start-up without compilers or a launcher, construction, one guarded step.

Owns: joining the process group, DeepSpeed's configuration, the check for non-finite gradients. Called by
`learner.learner`, `learner.minibatch` and `learner.finetune`. Must not know: losses, groups, files.

DeepSpeed takes the mean of the ranks' gradients; ours are sums over a minibatch, so `backward` multiplies by the
number of ranks. ZeRO stages 0 and 1 reduce in `guarded_step`, 2 and 3 in every backward pass: there the ranks must do
the same number of passes (`in_lockstep`).
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import sys
from contextlib import AbstractContextManager
from datetime import timedelta
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import nn

if TYPE_CHECKING:
    from deepspeed.runtime.engine import DeepSpeedEngine

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
JOIN_TIMEOUT_S = 120.0
Value = TypeVar("Value")


class StepResult(NamedTuple):
    """`grad_norm` before clipping (global, all ranks); `applied` False: gradient not finite, weights unchanged."""

    grad_norm: float
    applied: bool


def open_rendezvous(address: str, world_size: int) -> torch.distributed.TCPStore:
    """The place where the ranks meet, on a free port of `address`, this machine's: rank 0 opens it, and hands it to
    `join_ranks`; the others are told `.port`."""
    timeout = timedelta(seconds=JOIN_TIMEOUT_S)
    return torch.distributed.TCPStore(address, 0, world_size, is_master=True, timeout=timeout, wait_for_workers=False)


def join_ranks(
    rank: int = 0, world_size: int = 1, address: str = "127.0.0.1", port: int = 0,
    store: torch.distributed.Store | None = None,
) -> None:  # fmt: skip
    """Join the process group, once in a process; a second call with the same place does nothing.

    One rank needs no port. Several ranks meet at `address`:`port`, which rank 0 opens (or has opened: `store`),
    within JOIN_TIMEOUT_S seconds.
    """
    use_cuda = torch.cuda.is_available()
    if not use_cuda:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if torch.distributed.is_initialized():
        joined = (torch.distributed.get_rank(), torch.distributed.get_world_size())
        if joined != (rank, world_size):
            raise RuntimeError(
                f"this process already is rank {joined[0]} of {joined[1]}, asked to be rank {rank} of {world_size}; "
                "start each learner rank in a process of its own"
            )
        return
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=os.environ.get("LOCAL_RANK", "0"), WORLD_SIZE=str(world_size),
        LOCAL_SIZE=os.environ.get("LOCAL_SIZE", "1"), MASTER_ADDR=address, MASTER_PORT=str(port),
    )  # fmt: skip
    if address == "127.0.0.1":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    timeout = timedelta(seconds=JOIN_TIMEOUT_S)
    if world_size == 1:
        store = torch.distributed.HashStore()
    elif store is None:
        store = torch.distributed.TCPStore(address, port, world_size, is_master=rank == 0, timeout=timeout)
    backend = "cpu:gloo,cuda:nccl" if use_cuda else "gloo"
    torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=timeout)
    deepspeed = _import_deepspeed()
    # Its table of C++ extensions would call compilers to fill itself in, and then compile one for gloo (a
    # minute, and g++ must be there). An empty table means: do without.
    deepspeed.ops.__compatible_ops__ = {}
    deepspeed.init_distributed(dist_backend="nccl" if use_cuda else "gloo", auto_mpi_discovery=False)


def of_all_ranks(value: Value) -> list[Value]:
    """What each rank gave, by rank, on every rank. A collective: every rank must come here."""
    world_size = torch.distributed.get_world_size()
    if world_size == 1:
        return [value]
    values: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(values, value)
    return values


def start_engine(
    module: nn.Module, *, lr: float, weight_decay: float, grad_clip: float, dtype: str, zero_stage: int = 0,
    betas: tuple[float, float] = (0.9, 0.999), offload: str = "none",
) -> DeepSpeedEngine:  # fmt: skip
    """A DeepSpeed engine with torch's fused AdamW around `module` (weights already in `dtype`).

    In bfloat16 the forward and backward pass run on bfloat16 weights; master weights, accumulated
    gradients and optimizer state are fp32 (DeepSpeed has this from ZeRO stage 1 on, so 0 means 1
    there). Vectors (norms, biases) are not decayed. Each `guarded_step` is one update, whatever the
    number of backward passes before it. What does not require a gradient is not trained.

    `offload`: what waits in host memory while the GPU does not need it: "none", "optimizer" (from ZeRO stage 1 on) or
    "optimizer+parameters" (stage 3). The optimizer then runs on the CPU.
    """
    if not torch.distributed.is_initialized():
        join_ranks()
    deepspeed = _import_deepspeed()
    matrices = [parameter for parameter in module.parameters() if parameter.requires_grad and parameter.ndim > 1]
    vectors = [parameter for parameter in module.parameters() if parameter.requires_grad and parameter.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=lr, betas=betas, fused=True,
    )  # fmt: skip
    stage = max(zero_stage, 1) if dtype == "bfloat16" else zero_stage
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": grad_clip,
        "steps_per_print": None,
        "zero_optimization": {"stage": stage, "overlap_comm": False},
    }
    if offload != "none":
        # torch's AdamW: DeepSpeed's own for the CPU would have to be compiled.
        config["zero_force_ds_cpu_optimizer"] = False
        config["zero_optimization"]["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if offload == "optimizer+parameters":
        config["zero_optimization"]["offload_param"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if dtype == "bfloat16":
        config["bf16"] = {"enabled": True}
        config["data_types"] = {"grad_accum_dtype": "fp32"}
        config["communication_data_type"] = "fp32"  # a sum over ranks is as exact as one over micro-batches
    with contextlib.redirect_stdout(io.StringIO()):  # memory reports that no log level turns off
        engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=config, dist_init_required=False)
    if _is_bare(engine):
        engine.enable_backward_allreduce = False  # `guarded_step` does it, before it looks at the norm
    return engine


def _import_deepspeed() -> ModuleType:
    """DeepSpeed with its log on stderr (it writes to stdout, where the live view is)."""
    with contextlib.redirect_stdout(sys.stderr):
        import deepspeed
        from deepspeed.utils import logger
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout:
            handler.setStream(sys.stderr)
    logger.setLevel(logging.WARNING)
    return deepspeed


def set_learning_rate(engine: DeepSpeedEngine, lr: float) -> None:
    for group in engine.optimizer.param_groups:
        group["lr"] = lr


def gathered(engine: DeepSpeedEngine) -> AbstractContextManager[None]:
    """Whole parameters on every rank while it is open; only ZeRO stage 3 splits them."""
    return _gathered(engine, list(engine.module.parameters()), None)


def gathered_parameter(engine: DeepSpeedEngine, parameter: nn.Parameter) -> AbstractContextManager[None]:
    """One whole parameter; what rank 0 makes of it meanwhile is what all ranks have afterwards."""
    return _gathered(engine, [parameter], 0)


def _gathered(
    engine: DeepSpeedEngine, parameters: list[nn.Parameter], modifier: int | None
) -> AbstractContextManager[None]:
    if engine.zero_optimization_stage() < 3:
        return contextlib.nullcontext()
    context: AbstractContextManager[None] = _import_deepspeed().zero.GatheredParameters(
        parameters, modifier_rank=modifier
    )
    return context


def in_lockstep(engine: DeepSpeedEngine) -> tuple[bool, bool]:
    """Whether the ranks must do the same number of (forward only, forward and backward) passes."""
    several = torch.distributed.get_world_size() > 1
    return several and engine.zero_optimization_stage() >= 3, several and engine.zero_optimization_stage() >= 2


def backward(engine: DeepSpeedEngine, loss: torch.Tensor) -> None:
    """Adds the gradient of `loss`, this rank's part of a sum over all ranks."""
    engine.backward(loss * torch.distributed.get_world_size(), scale_wrt_gas=False)


def guarded_step(engine: DeepSpeedEngine) -> StepResult:
    """Apply the accumulated gradient, clipped, unless its norm is not finite; gradients are cleared either way.

    Every rank gets the same norm and does the same, whichever rank a non-finite gradient came from. DeepSpeed checks
    this itself except in fp32 without ZeRO, where torch's optimizer is bare.
    """
    if _is_bare(engine):
        if torch.distributed.get_world_size() > 1:
            engine.buffered_allreduce_fallback()
        gradients = [parameter.grad for parameter in engine.module.parameters() if parameter.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients))
        if not math.isfinite(norm):
            engine.zero_grad()
            engine.optimizer.zero_grad(set_to_none=True)
            return StepResult(norm, False)
        engine.step()
        return StepResult(norm, engine.was_step_applied())
    engine.step()
    return StepResult(float(engine.get_global_grad_norm() or 0.0), engine.was_step_applied())


def _is_bare(engine: DeepSpeedEngine) -> bool:
    return engine.optimizer is engine.basic_optimizer
