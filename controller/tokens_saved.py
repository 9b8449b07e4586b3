"""How many tokens the early end of thoughts has saved: an estimate, since nobody saw the rest of a thought.

Owns: `tokens_saved`. Called by `controller.metrics`. Must not know: turns, candidates, files.

A thought that TTI ended is an observation that was cut off: it would have been at least so long. Thoughts that
ended by themselves tell how thoughts of that length go on. The estimator is Kaplan and Meier's (1958): it uses
both kinds, and is unbiased as long as TTI does not pick thoughts that would have ended sooner or later than
others of the same length.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def tokens_saved(lengths: npt.NDArray[np.int64], cut: npt.NDArray[np.bool_]) -> float:
    """Expected tokens that the cut thoughts would still have had, summed over them.

    `lengths` [N]: tokens of each thought; `cut` [N]: whether it was ended early. Nothing is assumed beyond the
    longest thought that was seen, so with few long thoughts the number is too low rather than too high. 0 when
    nothing was cut; NaN when everything was, for then there is nothing to estimate from.
    """
    if lengths.shape != cut.shape or lengths.ndim != 1:
        raise ValueError(f"tokens_saved: lengths {lengths.shape} and cut {cut.shape} must be two lists of one length")
    if not cut.any():
        return 0.0
    if cut.all():
        return float("nan")
    longest = int(lengths.max())
    ended = np.bincount(lengths[~cut], minlength=longest + 1).astype(np.float64)
    reached = len(lengths) - np.concatenate([[0], np.cumsum(np.bincount(lengths, minlength=longest + 1))[:-1]])
    # A thought that was cut at a length had not ended at it: it counts among those that reached it.
    survival = np.cumprod(1.0 - ended / np.maximum(reached, 1))  # P(length > t)
    # E[length - t | length > t or cut at t] = sum over u >= t of P(length > u) / P(length > t - that ended at t)
    later = np.cumsum(survival[::-1])[::-1]
    residual = np.divide(later, survival, out=np.zeros_like(later), where=survival > 0.0)
    return float(residual[lengths[cut]].sum())
