"""Wilson score intervals: how sure a success rate is after so many tasks.

Owns: one formula. Called by `controller.evaluate` and whoever prints a rate. Must not know: what was counted.
"""

from __future__ import annotations

import math

Z_95 = 1.959963984540054
"""The 97.5% quantile of the normal distribution: a two-sided 95% interval."""


def wilson_interval(successes: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """Lower and upper bound of the rate behind `successes` of `trials`; (0, 1) when nothing was tried.

    Wilson (1927): the rates p with |p - successes / trials| <= z sqrt(p (1 - p) / trials). Unlike the usual
    p ± z·s it never leaves [0, 1] and holds its level when the rate is near 0 or 1.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"wilson_interval: {successes} successes in {trials} trials")
    if trials == 0:
        return 0.0, 1.0
    rate = successes / trials
    weight = z * z / trials
    centre = (rate + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(rate * (1 - rate) / trials + weight / (4 * trials))
    return max(0.0, centre - half), min(1.0, centre + half)
