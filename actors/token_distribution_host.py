"""The pass over the vocabulary for an engine on a CPU: one compiled loop over the rows.

Owns: `measure_rows`. Called by `actors.token_distribution`. Must not know: M, requests, vLLM.

A tensor library needs some twenty calls for this. Inside an engine, whose code has just washed through the caches,
each of them costs many times what it costs in a loop of its own; together they were most of TTI's time.

Importing this imports numba, and with it llvmlite: see the note in `actors.tti_slots`.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from actors.token_distribution import LOG_P_FLOOR

_F = np.float32
_LOG2_E, _LN2_HIGH, _LN2_LOW = _F(1.4426950408889634), _F(0.693359375), _F(-2.12194440e-4)
_HALF, _ONE, _ZERO = _F(0.5), _F(1), _F(0)
_C2, _C3, _C4, _C5, _C6 = _F(1 / 2), _F(1 / 6), _F(1 / 24), _F(1 / 120), _F(1 / 720)
_LEAST = _F(-87.0)  # exp of it is the smallest normal number; what lies below counts as that
_SEGMENT = 1024  # so many float32 terms are summed before they are added up in float64
_LANES = 32  # side by side; a compiler that may choose the order chooses another when it loads its cache
_NARROW, _WIDE, _LARGE = 64, 1024, 4096  # columns that a row is folded into, and the size from which it is the wide


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"nsz"})
def _fold(row: Any, maxima: Any) -> None:
    """The maximum of each column when the row is laid out `len(maxima)` wide."""
    width = len(maxima)
    for k in range(width):
        maxima[k] = row[k]
    whole = len(row) - len(row) % width
    for first in range(width, whole, width):
        for k in range(width):
            value = row[first + k]
            maxima[k] = value if value > maxima[k] else maxima[k]
    for k in range(len(row) - whole):
        value = row[whole + k]
        maxima[k] = value if value > maxima[k] else maxima[k]


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"nsz"})
def _exponentials(row: Any, peak: Any, mantissa: Any, exponent: Any) -> None:
    """exp(row - peak) as mantissa times the float whose bits are `exponent`; a comparison keeps NaN, a maximum not."""
    for i in range(len(row)):
        x = row[i] - peak
        x = _LEAST if x < _LEAST else x
        n = np.floor(x * _LOG2_E + _HALF)
        r = x - n * _LN2_HIGH - n * _LN2_LOW
        mantissa[i] = (((((_C6 * r + _C5) * r + _C4) * r + _C3) * r + _C2) * r + _ONE) * r + _ONE
        exponent[i] = (np.int32(n) + np.int32(127)) << np.int32(23)


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"nsz"})
def _sums(row: Any, peak: Any, mantissa: Any, scale: Any) -> tuple[Any, Any]:
    """Σ w and Σ w z with z = row - peak, w = exp z; summed in lanes, in our order, not the compiler's."""
    total, dot = 0.0, 0.0
    part, part_dot = np.empty(_LANES, np.float32), np.empty(_LANES, np.float32)
    for first in range(0, len(row), _SEGMENT):
        part[:], part_dot[:] = _ZERO, _ZERO
        last = min(first + _SEGMENT, len(row))
        whole = last - (last - first) % _LANES
        for start in range(first, whole, _LANES):
            for k in range(_LANES):
                x = row[start + k] - peak
                x = _LEAST if x < _LEAST else x
                w = mantissa[start + k] * scale[start + k]
                part[k] += w
                part_dot[k] += w * x
        for k in range(last - whole):
            x = row[whole + k] - peak
            x = _LEAST if x < _LEAST else x
            w = mantissa[whole + k] * scale[whole + k]
            part[k] += w
            part_dot[k] += w * x
        for k in range(_LANES):
            total += part[k]
            dot += part_dot[k]
    return total, dot


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _keep(value: Any, best: Any, count: int, most: int) -> int:
    """Puts `value` among the `most` largest so far, `best[:count]`, largest first; the new count."""
    if count == most:
        if not value > best[most - 1]:
            return count
        count -= 1
    place = count
    while place and value > best[place - 1]:
        best[place] = best[place - 1]
        place -= 1
    best[place] = value
    return count + 1


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _largest(row: Any, maxima: Any, best: Any, most: int) -> None:
    """The `most` largest values of the row, to `best`.

    They lie in columns whose maximum reaches the `most`-th largest column maximum; few others do.
    """
    width, count = len(maxima), 0
    for k in range(width):
        count = _keep(maxima[k], best, count, min(most, width))
    low = best[most - 1] if most < width else _F(-np.inf)
    count = 0
    for k in range(width):
        if maxima[k] >= low:
            for i in range(k, len(row), width):
                if row[i] >= low:
                    count = _keep(row[i], best, count, most)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def measure_rows(logits: Any, top_j: Any, out: Any) -> None:
    """Entropy, confidence over `top_j` [B], largest log-probability of each row of `logits` [B, V], to `out` [3, B]."""
    rows, vocabulary = logits.shape
    maxima = np.empty(min(_WIDE if vocabulary > _LARGE else _NARROW, vocabulary), np.float32)
    mantissa, best = np.empty(vocabulary, np.float32), np.empty(max(vocabulary, len(maxima)), np.float32)
    exponent = np.empty(vocabulary, np.int32)
    scale = exponent.view(np.float32)
    for place in range(rows):
        row = logits[place]
        _fold(row, maxima)
        peak = maxima[0]
        for k in range(1, len(maxima)):
            peak = max(peak, maxima[k])
        _exponentials(row, peak, mantissa, exponent)
        total, dot = _sums(row, peak, mantissa, scale)
        if not (math.isfinite(total) and math.isfinite(dot) and math.isfinite(peak)):
            out[:, place] = math.nan
            continue
        log_total = math.log(total)
        most = min(top_j[place], vocabulary)
        _largest(row, maxima, best, most)
        gathered = 0.0
        for k in range(most):
            gathered += max(float(best[k]) - float(peak) - log_total, LOG_P_FLOOR)
        out[0, place] = max(log_total - dot / total, 0.0)
        out[1, place] = -gathered / most
        out[2, place] = -log_total
