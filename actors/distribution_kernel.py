"""The pass over the vocabulary, and forcing, as Triton kernels for GPUs.

Owns: the kernels and their launch. Called by `actors.token_distribution` and `actors.tti_processor_v2`, with tensors on
a GPU. Must not know: M, requests, vLLM. Needs torch and Triton alone; under TRITON_INTERPRET=1 it runs on a CPU, which
is how the unit tests compare it with the float64 oracle.

Two launches. The first reads the logits once: each program takes one chunk of one row to its maximum, Σ exp z and
Σ z exp z, and stores the maximum of every 64 neighbours. The second joins a row's chunks and finds its j largest
values: they lie in the j groups with the largest maxima, so only those groups are read again.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from actors.token_distribution import LOG_P_FLOOR, SHIFT_FLOOR

_CHUNK = 8192
_GROUP = 64
_LOWEST = -3.0e38  # stands for a logit of -inf, so that one that was taken already (-inf) is never taken twice


@triton.jit
def _chunk_kernel(
    logits_ptr, row_stride, partial_ptr, group_ptr, vocabulary, num_groups,
    CHUNK: tl.constexpr, GROUP: tl.constexpr, FLOOR: tl.constexpr,
):  # fmt: skip
    row, chunk, num_chunks = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    at = chunk * CHUNK + tl.arange(0, CHUNK)
    scores = tl.load(logits_ptr + row * row_stride + at, mask=at < vocabulary, other=float("-inf")).to(tl.float32)
    peak = tl.max(scores, 0)
    shifted = scores - tl.where(peak == float("-inf"), 0.0, peak)
    shifted = tl.where(shifted < FLOOR, FLOOR, shifted)  # a comparison keeps NaN, a maximum would not
    weights = tl.exp(shifted)
    weights = tl.where(shifted == FLOOR, 0.0, weights)
    out = partial_ptr + (row * num_chunks + chunk) * 3
    tl.store(out, peak)
    tl.store(out + 1, tl.sum(weights, 0))
    tl.store(out + 2, tl.sum(weights * shifted, 0))
    group = chunk * (CHUNK // GROUP) + tl.arange(0, CHUNK // GROUP)
    largest = tl.max(tl.reshape(scores, (CHUNK // GROUP, GROUP)), 1)
    tl.store(group_ptr + row * num_groups + group, largest, mask=group < num_groups)


@triton.jit
def _row_kernel(
    logits_ptr, row_stride, partial_ptr, group_ptr, top_j_ptr, out_ptr, vocabulary, num_groups, num_chunks, num_rows,
    most, CHUNKS: tl.constexpr, GROUPS: tl.constexpr, GROUP: tl.constexpr, TAKEN: tl.constexpr,
    MOST: tl.constexpr, OWN_J: tl.constexpr, FLOOR: tl.constexpr, LOG_P_FLOOR: tl.constexpr, LOWEST: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    # The sums of the row, from those of its chunks.
    chunk = tl.arange(0, CHUNKS)
    there = chunk < num_chunks
    source = partial_ptr + (row * num_chunks + chunk) * 3
    peaks = tl.load(source, mask=there, other=float("-inf"))
    peak = tl.max(peaks, 0)
    shift = peaks - peak  # NaN where the whole row is -inf or holds +inf: the row is not measured
    shift = tl.where(shift < FLOOR, FLOOR, shift)
    scale = tl.exp(shift)
    sums = tl.load(source + 1, mask=there, other=0.0)
    dots = tl.load(source + 2, mask=there, other=0.0)
    total = tl.sum(scale * sums, 0).to(tl.float64)
    dot = tl.sum(scale * (dots + shift * sums), 0).to(tl.float64)
    log_total = tl.log(total)
    entropy = log_total - dot / total
    entropy = tl.where(entropy < 0.0, 0.0, entropy)
    # The groups that hold the largest values.
    group = tl.arange(0, GROUPS)
    maxima = tl.load(group_ptr + row * num_groups + group, mask=group < num_groups, other=float("-inf"))
    maxima = tl.where((group < num_groups) & (maxima < LOWEST), LOWEST, maxima)
    place = tl.arange(0, MOST)
    chosen = tl.zeros((MOST,), tl.int32)
    for k in range(TAKEN):
        best = tl.argmax(maxima, 0).to(tl.int32)
        chosen = tl.where(place == k, best, chosen)
        maxima = tl.where(group == best, float("-inf"), maxima)
    # The largest values within them.
    at = chosen[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    real = (place[:, None] < TAKEN) & (at < vocabulary)
    scores = tl.load(logits_ptr + row * row_stride + at, mask=real, other=float("-inf")).to(tl.float32)
    scores = tl.where(real & (scores < LOWEST), LOWEST, scores)
    scores = tl.reshape(scores, (MOST * GROUP,))
    index = tl.arange(0, MOST * GROUP)
    count = most
    if OWN_J:
        count = tl.minimum(tl.load(top_j_ptr + row).to(tl.int32), most)
    gathered = tl.zeros((), tl.float64)
    for k in range(most):
        best = tl.argmax(scores, 0)
        value = tl.max(scores, 0)
        log_p = (value - peak).to(tl.float64) - log_total
        log_p = tl.where(log_p < LOG_P_FLOOR, LOG_P_FLOOR, log_p)
        gathered += tl.where(k < count, log_p, 0.0)
        scores = tl.where(index == best, float("-inf"), scores)
    tl.store(out_ptr + row, entropy)
    tl.store(out_ptr + num_rows + row, -gathered / count + (entropy - entropy))
    tl.store(out_ptr + 2 * num_rows + row, -log_total)


@triton.jit
def _force_kernel(
    logits_ptr, row_stride, rows_ptr, tokens_ptr, vocabulary, ALL_ROWS: tl.constexpr, CHUNK: tl.constexpr
):
    token = tl.load(tokens_ptr + tl.program_id(0))
    if token < 0:
        return
    row = tl.program_id(0).to(tl.int64)
    if not ALL_ROWS:
        row = tl.load(rows_ptr + row).to(tl.int64)
    at = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    values = tl.where(at == token, 0.0, float("-inf"))
    tl.store(logits_ptr + row * row_stride + at, values, mask=at < vocabulary)


def measure_distribution(logits: Tensor, most: int, top_j: Tensor | None = None) -> Tensor:
    """Entropy, confidence, largest log-probability: [3, B] float64; as `actors.token_distribution` defines them."""
    rows, vocabulary = logits.shape
    most = min(most, vocabulary)
    chunks, groups = triton.cdiv(vocabulary, _CHUNK), triton.cdiv(vocabulary, _GROUP)
    partial = torch.empty(rows, chunks, 3, dtype=torch.float32, device=logits.device)
    maxima = torch.empty(rows, groups, dtype=torch.float32, device=logits.device)
    out = torch.empty(3, rows, dtype=torch.float64, device=logits.device)
    _chunk_kernel[(rows, chunks)](
        logits, logits.stride(0), partial, maxima, vocabulary, groups,
        CHUNK=_CHUNK, GROUP=_GROUP, FLOOR=SHIFT_FLOOR, num_warps=8,
    )  # fmt: skip
    _row_kernel[(rows,)](
        logits, logits.stride(0), partial, maxima, top_j if top_j is not None else out, out, vocabulary, groups,
        chunks, rows, most,
        CHUNKS=triton.next_power_of_2(chunks), GROUPS=triton.next_power_of_2(groups), GROUP=_GROUP,
        TAKEN=min(most, groups), MOST=triton.next_power_of_2(most), OWN_J=top_j is not None,
        FLOOR=SHIFT_FLOOR, LOG_P_FLOOR=LOG_P_FLOOR, LOWEST=_LOWEST, num_warps=8,
    )  # fmt: skip
    return out


def force_tokens(logits: Tensor, tokens: Tensor, rows: Tensor | None = None) -> None:
    """Leaves in each of `rows` (all, in order, when None) its token of `tokens` [B] alone; -1: the row stays."""
    vocabulary = logits.shape[1]
    _force_kernel[(len(tokens), triton.cdiv(vocabulary, _CHUNK))](
        logits, logits.stride(0), rows if rows is not None else tokens, tokens, vocabulary,
        ALL_ROWS=rows is None, CHUNK=_CHUNK, num_warps=8,
    )  # fmt: skip
