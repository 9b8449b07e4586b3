"""Entropy and confidence of next-token distributions: the pass over the vocabulary (METHOD section 2).

Owns: `measure_distribution`, for a CPU here, for a GPU by the kernels of `actors.distribution_kernel`. Called by
`actors.tti_processor` and `actors.tti_processor_v2`, inside the engine. Must not know: vLLM, requests, M.

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

_BLOCK_ELEMENTS = 100_000  # rows are taken in blocks that stay in a CPU core's second-level cache
_DIRECT_PARTITION = 4096  # vocabularies up to here are partitioned whole, larger ones group by group
_GROUP = 64


class Distribution(NamedTuple):
    """Of each row, float64 [B], nats; NaN where a row cannot be measured."""

    entropy: Tensor
    confidence: Tensor  # C: mean negative log-probability of the j most likely tokens
    log_max: Tensor  # ln of the largest probability


class Scratch:
    """Memory that steps write over: taking it afresh for every step costs more than the arithmetic."""

    def __init__(self) -> None:
        self._buffers = torch.empty(2, 0)

    def take(self, rows: int, vocabulary: int) -> Tensor:
        """Two arrays [2, rows, vocabulary]."""
        size = rows * vocabulary
        if self._buffers.shape[1] < size:
            self._buffers = torch.empty(2, size)
        return self._buffers[:, :size].view(2, rows, vocabulary)


def measure_distribution(
    logits: Tensor, most: int, top_j: Tensor | None = None, scratch: Scratch | None = None
) -> Distribution:
    """Entropy, top-j confidence and largest log-probability of each row of `logits` [B, V].

    j is `most` for every row, or for each row its own, `top_j` [B] on the logits' device, none above `most`. A
    vocabulary smaller than j is averaged whole. `scratch` is used on a CPU.
    """
    if logits.device.type == "cuda":
        from actors.distribution_kernel import measure_distribution as by_kernel

        return Distribution(*by_kernel(logits, most, top_j))
    most = min(most, logits.shape[1])
    log_total, dot, top = _sums_and_largest(logits, most, scratch or Scratch())
    entropy = (log_total - dot).clamp_(min=0)
    log_p = (top - log_total[:, None]).clamp_(min=LOG_P_FLOOR)
    if top_j is None:
        return Distribution(entropy, log_p.mean(1).neg_(), -log_total)
    cumulated = log_p.sort(1, descending=True).values.cumsum(1)
    count = top_j.clamp(max=most)
    return Distribution(entropy, -cumulated.gather(1, (count - 1)[:, None]).squeeze(1) / count, -log_total)


def _sums_and_largest(logits: Tensor, count: int, scratch: Scratch) -> tuple[Tensor, Tensor, Tensor]:
    """With z = logits - their maximum: ln Σ exp z [B], Σ p z [B], the `count` largest z [B, count], in no order."""
    rows, vocabulary = logits.shape
    block = min(max(1, _BLOCK_ELEMENTS // vocabulary), rows)
    buffers = scratch.take(block, vocabulary)
    peaks, total, dot = torch.empty(3, rows)
    top = torch.empty(rows, count)
    for first in range(0, rows, block):
        part = slice(first, min(first + block, rows))
        scores = logits[part]
        z, w = buffers[:, : len(scores)]
        peaks[part] = scores.amax(1)
        torch.sub(scores, peaks[part, None], out=z).clamp_(min=SHIFT_FLOOR)
        torch.exp(z, out=w)
        torch.sum(w, 1, out=total[part])
        torch.sum(w.mul_(z), 1, out=dot[part])
        top[part] = _largest(z, count)
    total = total.double()
    return total.log(), dot / total, top


def _largest(z: Tensor, count: int) -> Tensor:
    """The `count` largest values of each row, in no order. Writes over `z`.

    torch.topk is slow on a CPU. The largest values lie in the groups with the largest maxima, so a large
    vocabulary is first cut down to `count` groups; numpy's partition then selects within what is left.
    """
    vocabulary = z.shape[1]
    groups = vocabulary // _GROUP
    if vocabulary > _DIRECT_PARTITION and groups > count:
        whole = z[:, : groups * _GROUP].view(-1, groups, _GROUP)
        last = groups - count
        chosen = torch.from_numpy(np.argpartition(whole.amax(2).numpy(), last, axis=1)[:, last:])
        kept = whole.gather(1, chosen[:, :, None].expand(-1, -1, _GROUP)).flatten(1)
        z = torch.cat((kept, z[:, groups * _GROUP :]), 1)
    first = z.shape[1] - count
    z.numpy().partition(first, axis=1)
    return z[:, first:]
