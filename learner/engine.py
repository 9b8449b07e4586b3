"""The DeepSpeed engine: start-up without compilers or a launcher, construction, one guarded step.

Owns: joining the process group, DeepSpeed's configuration, the check for non-finite gradients. Called by
`learner.learner` and `learner.finetune`. Must not know: losses, groups, files.
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
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

if TYPE_CHECKING:
    from deepspeed.runtime.engine import DeepSpeedEngine

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
JOIN_TIMEOUT_S = 120.0


class StepResult(NamedTuple):
    """`grad_norm` before clipping (global, all ranks); `applied` False: gradient not finite, weights unchanged."""

    grad_norm: float
    applied: bool


def join_ranks(rank: int = 0, world_size: int = 1, address: str = "127.0.0.1", port: int = 0) -> None:
    """Join the process group, once in a process; a second call with the same place does nothing.

    One rank needs no port. Several ranks meet at `address`:`port`, which rank 0 opens, within
    JOIN_TIMEOUT_S seconds.
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
    store: torch.distributed.Store
    if world_size == 1:
        store = torch.distributed.HashStore()
    else:
        store = torch.distributed.TCPStore(address, port, world_size, is_master=rank == 0, timeout=timeout)
    torch.distributed.init_process_group(
        "nccl" if use_cuda else "gloo", store=store, rank=rank, world_size=world_size, timeout=timeout
    )
    deepspeed = _import_deepspeed()
    # Its table of C++ extensions would call compilers to fill itself in, and then compile one for gloo (a
    # minute, and g++ must be there). An empty table means: do without.
    deepspeed.ops.__compatible_ops__ = {}
    deepspeed.init_distributed(dist_backend="nccl" if use_cuda else "gloo", auto_mpi_discovery=False)


def start_engine(
    module: nn.Module, *, lr: float, weight_decay: float, grad_clip: float, dtype: str, zero_stage: int = 0,
    betas: tuple[float, float] = (0.9, 0.999),
) -> DeepSpeedEngine:  # fmt: skip
    """A DeepSpeed engine with torch's fused AdamW around `module` (weights already in `dtype`).

    In bfloat16 the forward and backward pass run on bfloat16 weights; master weights, accumulated
    gradients and optimizer state are fp32 (DeepSpeed has this from ZeRO stage 1 on, so 0 means 1
    there). Vectors (norms, biases) are not decayed. Each `guarded_step` is one update, whatever the
    number of backward passes before it.
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
    if dtype == "bfloat16":
        config["bf16"] = {"enabled": True}
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    with contextlib.redirect_stdout(io.StringIO()):  # memory reports that no log level turns off
        engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=config, dist_init_required=False)
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
    if engine.zero_optimization_stage() < 3:
        return contextlib.nullcontext()
    context: AbstractContextManager[None] = _import_deepspeed().zero.GatheredParameters(
        list(engine.module.parameters())
    )
    return context


def guarded_step(engine: DeepSpeedEngine) -> StepResult:
    """Apply the accumulated gradient, clipped, unless its norm is not finite; gradients are cleared either way.

    DeepSpeed checks this itself except in fp32 without ZeRO, where torch's optimizer is bare.
    """
    bare = engine.optimizer is engine.basic_optimizer
    if bare and not math.isfinite(norm := _gradient_norm(engine.module)):
        engine.zero_grad()
        engine.optimizer.zero_grad(set_to_none=True)
        return StepResult(norm, False)
    engine.step()
    if not bare:
        norm = float(engine.get_global_grad_norm() or 0.0)
    return StepResult(norm, engine.was_step_applied())


def _gradient_norm(module: nn.Module) -> float:
    """Norm of this rank's gradient; with several ranks every rank learns of one rank's non-finite value."""
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if torch.distributed.get_world_size() > 1:
        torch.distributed.all_reduce(norm, op=torch.distributed.ReduceOp.SUM)
    return float(norm)
