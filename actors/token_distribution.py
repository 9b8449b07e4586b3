"""Entropy and confidence of next-token distributions: the pass over the vocabulary (METHOD section 2).

Owns: `measure_distribution`: which of `actors.distribution_kernel` (GPUs) and `actors.token_distribution_host` (CPUs)
does it. Called by `actors.tti_processor` and `actors.tti_processor_v2`, inside the engine. Must not know: vLLM,
requests, M.

Everything else of the signal is some numbers a row; this is the part whose cost grows with the vocabulary, so it reads
the logits as few times as it can.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

LOG_P_FLOOR = -100.0
SHIFT_FLOOR = -104.0  # exp of it is 0 in fp32; keeps 0 * -inf out of the sums


class Distribution(NamedTuple):
    """Of each row, float64 [B], nats; NaN where a row cannot be measured."""

    entropy: Tensor
    confidence: Tensor  # C: mean negative log-probability of the j most likely tokens
    log_max: Tensor  # ln of the largest probability


def measure_distribution(logits: Tensor, most: int, top_j: Tensor | None = None) -> Distribution:
    """Entropy, top-j confidence and largest log-probability of each row of `logits` [B, V].

    j is `most` for every row, or for each row its own, `top_j` [B] on the logits' device, none above `most`. A
    vocabulary smaller than j is averaged whole.
    """
    if logits.device.type == "cuda":
        from actors.distribution_kernel import measure_distribution as by_kernel

        return Distribution(*by_kernel(logits, most, top_j))
    # Not before an engine's worker is up: see `actors.tti_slots`.
    from actors.token_distribution_host import measure_rows

    out = torch.empty(3, len(logits), dtype=torch.float64)
    count = np.full(len(logits), most) if top_j is None else top_j.numpy()
    measure_rows(logits.float().numpy(), count, out.numpy())
    return Distribution(*out)
