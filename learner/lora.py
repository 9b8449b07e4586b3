"""LoRA: small trained matrices beside frozen ones (arXiv 2106.09685), made by peft.

Owns: `add_adapters`, `without_adapters`, `merged_weights`. Called by `learner.learner`, `learner.minibatch`. Must not
know: engines, losses, files.

The adapters are put into the model in place. Engines and exported folders get each frozen matrix with its adapter
added, under the plain name, so that nobody else has to know of LoRA.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from learner.settings import LearnerSettings

ADAPTER = "policy"


def add_adapters(policy: PreTrainedModel, settings: LearnerSettings) -> None:
    """Puts adapters beside the layers that `settings.lora_targets` names and freezes everything else.

    Their second matrix begins at zero, so the model computes what it did. Drawn from torch's generator: the same on
    every rank that was seeded alike. ValueError when the model has no such layer.
    """
    from peft import LoraConfig, inject_adapter_in_model

    names = [name.strip() for name in settings.lora_targets.split(",")]
    linear = {name.rpartition(".")[2] for name, module in policy.named_modules() if isinstance(module, nn.Linear)}
    if names == ["all"]:
        names = sorted(linear - {"lm_head"})
    if unknown := sorted(set(names) - linear):
        raise ValueError(
            f"learner.lora_targets = {settings.lora_targets!r}: the model has no linear layer {', '.join(unknown)}; "
            f'it has {", ".join(sorted(linear))}, or "all"'
        )
    dtype = policy.dtype
    alpha = settings.lora_alpha or 2 * settings.lora_rank
    config = LoraConfig(r=settings.lora_rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=names)
    inject_adapter_in_model(config, policy, adapter_name=ADAPTER)
    policy.to(dtype)  # peft makes fp32 ones; DeepSpeed keeps fp32 master weights of what it trains
    for name, parameter in policy.named_parameters():
        parameter.requires_grad_(".lora_" in name)


@contextlib.contextmanager
def without_adapters(policy: nn.Module) -> Iterator[None]:
    """The model as it was before training: the reference policy without a second model. Forward passes only."""
    layers = _layers(policy)
    for layer in layers.values():
        layer.enable_adapters(False)
    try:
        with torch.no_grad():
            yield
    finally:
        for layer in layers.values():
            layer.enable_adapters(True)


@torch.no_grad()
def merged_weights(policy: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The state dict under plain names, adapters added to what they stand beside (summed in fp32); no copies of the
    rest. Without adapters it is the plain state dict."""
    state: dict[str, torch.Tensor] = policy.state_dict()
    layers = _layers(policy)
    if not layers:
        return state
    merged = {}
    for name, tensor in state.items():
        if ".lora_" in name:
            continue
        owner, _, leaf = name.partition(".base_layer.")
        if leaf == "weight":
            delta = _delta(layers[owner])
            tensor = (tensor.float() + delta).to(tensor.dtype)
        merged[name.replace(".base_layer.", ".")] = tensor
    return merged


def _delta(layer: Any) -> torch.Tensor:
    down, up = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    delta: torch.Tensor = layer.scaling[ADAPTER] * (up.float() @ down.float())
    return delta


def _layers(policy: nn.Module) -> dict[str, Any]:
    """The layers with an adapter, by name."""
    return {name: module for name, module in policy.named_modules() if hasattr(module, "lora_A")}
