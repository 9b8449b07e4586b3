"""The critic's loss: one value a turn.

Owns: `value_losses`. Called by the learner. Must not know: the critic's model, how targets were made.
"""

from __future__ import annotations

import torch


def value_losses(
    values: torch.Tensor, old_values: torch.Tensor, targets: torch.Tensor, value_clip: float
) -> torch.Tensor:
    """max((V - R)², (V_old + clip(V - V_old, ±value_clip) - R)²)/2 of each turn [M], in squared units of reward.

    `values` [M] with gradient, `old_values` [M] at the start of the step, `targets` R [M] (`value_targets`). The clip
    takes the gradient from a value that has moved further than `value_clip` towards its target; 0 leaves it out.
    Source: OpenAI's PPO2 baseline, written down in Engstrom et al. 2020 (arXiv 2005.12729), section 3.
    """
    targets = targets.detach()
    plain = (values - targets).square()
    if not value_clip:
        return 0.5 * plain
    old_values = old_values.detach()
    near = old_values + (values - old_values).clamp(-value_clip, value_clip)
    return 0.5 * torch.maximum(plain, (near - targets).square())
