"""Which policy losses there are, and the one that a knob names.

Owns: `LOSSES`, `find_loss`. Called by `learner.losses.objective`; `learner.settings` checks names with it, so torch is
not imported before a loss is asked for. Must not know: how any loss works.

To add one: a function `(LossTokens, LossSettings) -> Tensor [N]`, the loss of each token, and one line below. One's own
needs no line: `loss.policy = "my_module:my_function"`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from learner.named_function import check_name, find_function

if TYPE_CHECKING:
    import torch

    from learner.losses.tokens import LossTokens
    from learner.settings import LossSettings

    PolicyLoss = Callable[[LossTokens, LossSettings], torch.Tensor]

LOSSES: dict[str, str] = {
    "sequence_ratio": "learner.losses.ratio:sequence_ratio",
    "token_ratio": "learner.losses.ratio:token_ratio",
    "unclipped": "learner.losses.ratio:unclipped",
}


def check_loss(name: str) -> str:
    """`name`, when it can be a loss's; nothing is imported. UnknownFunction (a ValueError)."""
    return check_name("policy loss", name, LOSSES)


def find_loss(name: str) -> PolicyLoss:
    """The loss of this name: a built-in one, or `module:function`. UnknownFunction (a ValueError)."""
    return find_function("policy loss", name, LOSSES, 2)
