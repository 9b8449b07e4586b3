"""The trained parameters and their AdamW states, whole, by name: whatever the ranks and ZeRO stages split them into.

Owns: reading them out of a DeepSpeed engine and putting them back. Called by `learner.snapshot`. Must not know: files.

Going through whole parameters in fp32 makes a checkpoint independent of how many ranks wrote it and at which ZeRO
stage, which DeepSpeed's own files are not. It loses nothing: master weights and both moments are fp32.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from learner.engine import gathered_parameter, set_learning_rate

if TYPE_CHECKING:
    from deepspeed.runtime.engine import DeepSpeedEngine

WEIGHT, MOMENTS = "weight", ("exp_avg", "exp_avg_sq")
KINDS = (WEIGHT, *MOMENTS)


def trained_parameters(engine: DeepSpeedEngine) -> list[tuple[str, torch.nn.Parameter]]:
    """Names and parameters, in the model's order: the same on every rank."""
    return [(name, parameter) for name, parameter in engine.module.named_parameters() if parameter.requires_grad]


def num_adam_steps(engine: DeepSpeedEngine) -> float:
    """AdamW's own count, which corrects its young moments; 0 before the first update."""
    return max((float(state["step"]) for state in _states(engine)), default=0.0)


def whole_states(engine: DeepSpeedEngine) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """(name, {kind: whole fp32 tensor}) of every trained parameter. A collective: every rank goes through all of it.

    The moments are left out when there are none yet (`num_adam_steps` is 0).
    """
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    kinds = KINDS if num_adam_steps(engine) else (WEIGHT,)
    link_states(engine)
    for name, parameter in trained_parameters(engine):
        if engine.optimizer is engine.basic_optimizer:
            state = engine.optimizer.state.get(parameter, {})
            whole = {kind: parameter.detach() if kind == WEIGHT else state[kind] for kind in kinds}
        else:
            whole = {
                kind: safe_get_full_fp32_param(parameter)
                if kind == WEIGHT
                else safe_get_full_optimizer_state(parameter, kind)
                for kind in kinds
            }
        yield name, whole


@torch.no_grad()
def put_state(engine: DeepSpeedEngine, parameter: torch.nn.Parameter, whole: dict[str, torch.Tensor]) -> None:
    """Puts what `whole_states` gave for one parameter into the engine; it must have optimizer states (`prime`)."""
    with gathered_parameter(engine, parameter):  # what the forward pass uses; ZeRO 3 splits it again afterwards
        if not _is_split(parameter) or torch.distributed.get_rank() == 0:
            parameter.copy_(whole[WEIGHT].to(parameter.device, parameter.dtype))
    for kind in KINDS:
        value = whole.get(kind)
        if value is None:
            value = torch.zeros_like(whole[WEIGHT])
        value = value.to(engine.device)
        if engine.optimizer is engine.basic_optimizer:
            if kind != WEIGHT:
                engine.optimizer.state[parameter][kind].copy_(value)
        elif _is_split(parameter):
            _put_share(parameter, kind, value)
        else:
            _put_fragment(parameter, kind, value)


def _put_fragment(parameter: torch.nn.Parameter, kind: str, value: torch.Tensor) -> None:
    """ZeRO 1 and 2: each rank keeps its fragment of it, on some ranks none."""
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

    if kind == WEIGHT:
        safe_set_full_fp32_param(parameter, value)
    else:
        safe_set_full_optimizer_state(parameter, value, kind)


def _put_share(parameter: torch.nn.Parameter, kind: str, value: torch.Tensor) -> None:
    """ZeRO 3: equal shares, the last one padded (which DeepSpeed's own setter of whole tensors forgets)."""
    from deepspeed.utils import safe_set_local_fp32_param, safe_set_local_optimizer_state

    size = parameter.ds_tensor.numel()  # type: ignore[attr-defined]
    rank, num_ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    padded = torch.zeros(size * num_ranks, dtype=value.dtype, device=value.device)
    padded[: value.numel()] = value.flatten()
    share = padded[rank * size : (rank + 1) * size]
    if kind == WEIGHT:
        safe_set_local_fp32_param(parameter, share)
    else:
        safe_set_local_optimizer_state(parameter, share, kind)


def set_adam_steps(engine: DeepSpeedEngine, steps: float) -> None:
    for state in _states(engine):
        state["step"] = torch.full_like(state["step"], steps)


def prime(engine: DeepSpeedEngine) -> None:
    """Makes the optimizer's states exist, by a step of rate 0 on the gradient of zero that was accumulated before."""
    set_learning_rate(engine, 0.0)
    engine.step()


def link_states(engine: DeepSpeedEngine) -> None:
    """Lets every parameter find its states. DeepSpeed 0.19.8 does this in ZeRO stages 1 and 2 after the step of the
    first parameter group, when the second one (ours: what is not decayed) has none yet, and never again."""
    optimizer = engine.optimizer
    if num_adam_steps(engine) and hasattr(optimizer, "_lazy_init_hp_params_optimizer_state"):
        optimizer._hp_optimizer_states_linked = False
        optimizer._lazy_init_hp_params_optimizer_state()


def _states(engine: DeepSpeedEngine) -> list[dict[str, Any]]:
    return [state for state in engine.basic_optimizer.state.values() if "step" in state]


def _is_split(parameter: torch.nn.Parameter) -> bool:
    return hasattr(parameter, "ds_id")
