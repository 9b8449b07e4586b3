"""Faster norms and rotary embeddings for training small fp32 models on a CPU.

Owns: `use_cpu_layers`. Called by `learner.scoring` when a policy is loaded in fp32 without a GPU. Must not
know: which model it is; a layer is replaced only where it computes what ours does, which is checked on
random numbers first.

A small model spends about half of its time between the matrix products, in chains of element-wise
operations that each read and write the whole activation. The forward and backward passes here do the
same arithmetic in fewer passes (bench/learner.py --plain-layers shows the difference).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import MethodType, ModuleType
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

TOLERANCE = 1e-5


class _Norm(torch.autograd.Function):
    """y = x / sqrt(mean(x²) + eps) * weight over the last dimension; x [..., D], weight [D]."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        return (x * inverse).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        (gradient,) = gradients
        x, weight, inverse = ctx.saved_tensors
        unit = x * inverse
        weighted = gradient * unit
        along = (weighted @ weight).div_(-x.shape[-1]).unsqueeze(-1)
        weight_gradient = weighted.reshape(-1, x.shape[-1]).sum(0)
        return (gradient * weight).addcmul_(unit, along).mul_(inverse), weight_gradient, None


class _Rotation(torch.autograd.Function):
    """x cos + rotate_half(x) sin; x [B, H, L, D], cos and sin [B or 1, 1, L, D] without gradient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        half = x.shape[-1] // 2
        turned = x * cos
        turned[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
        turned[..., half:].addcmul_(x[..., :half], sin[..., half:])
        return turned

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient,) = gradients
        cos, sin = ctx.saved_tensors
        half = gradient.shape[-1] // 2
        back = gradient * cos
        back[..., :half].addcmul_(gradient[..., half:], sin[..., half:])
        back[..., half:].addcmul_(gradient[..., :half], sin[..., :half], value=-1)
        return back, None, None


def use_cpu_layers(policy: PreTrainedModel) -> tuple[int, bool]:
    """Replace what can be replaced; returns the number of norms and whether rotary embeddings were."""
    norms = sum(_replace_norm(module) for module in policy.modules() if type(module).__name__.endswith("RMSNorm"))
    rotary = False
    for module in policy.modules():
        if type(module).__name__.endswith("Attention"):
            rotary = _replace_rotary(sys.modules[type(module).__module__], getattr(module, "head_dim", 0)) or rotary
    return norms, rotary


def _replace_norm(module: nn.Module) -> bool:
    weight, eps = getattr(module, "weight", None), getattr(module, "variance_epsilon", None)
    if not isinstance(weight, nn.Parameter) or weight.ndim != 1 or not isinstance(eps, float):
        return False

    def forward(self: nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = _Norm.apply(hidden_states, self.weight, eps)
        return normed

    probe = torch.linspace(-3.0, 2.0, 4 * len(weight)).reshape(4, len(weight))
    with torch.no_grad():
        if not torch.allclose(module(probe), forward(module, probe), rtol=TOLERANCE, atol=TOLERANCE):
            return False
    module.forward = MethodType(forward, module)  # type: ignore[method-assign]
    return True


def _replace_rotary(modeling: ModuleType, head_dim: int) -> bool:
    """Replaces the function in transformers' module, for this process; all but fp32 on a CPU goes to the original."""
    original: Callable[..., tuple[torch.Tensor, torch.Tensor]] | None
    original = getattr(modeling, "apply_rotary_pos_emb", None)
    if original is None or head_dim < 2:
        return False
    if getattr(original, "is_cpu_layer", False):
        return True

    def rotate(
        q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, unsqueeze_dim: int = 1
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if q.dtype != torch.float32 or q.device.type != "cpu" or unsqueeze_dim != 1 or cos.requires_grad:
            return original(q, k, cos, sin, unsqueeze_dim)
        cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
        return _Rotation.apply(q, cos, sin), _Rotation.apply(k, cos, sin)

    rotate.is_cpu_layer = True  # type: ignore[attr-defined]
    q = torch.linspace(-1.0, 2.0, 6 * head_dim).reshape(1, 2, 3, head_dim)
    angle = torch.linspace(0.0, 3.0, 3 * head_dim).reshape(1, 3, head_dim)
    try:
        expected = original(q, q[:, :1], angle.cos(), angle.sin())
    except (TypeError, RuntimeError):
        return False
    ours = rotate(q, q[:, :1], angle.cos(), angle.sin())
    if not all(torch.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE) for a, b in zip(expected, ours, strict=True)):
        return False
    modeling.apply_rotary_pos_emb = rotate  # type: ignore[attr-defined]
    return True
