"""What a signal did before and does now: levels, spreads and moving means that one odd step does not move.

Owns: the robust statistics of a series. Called by the detectors. Must not know: what a signal means, thresholds.

A series is a float64 array [steps], NaN where nothing was measured; its last entry is the present step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Series = Mapping[str, Values]
"""Name of a metric -> its values [steps], all of one length."""

MAD_TO_STD = 1.4826
"""The median absolute deviation of a normal distribution times this is its standard deviation."""


def measured(values: Values) -> Values:
    """The entries that are finite, in order."""
    return values[np.isfinite(values)]


def column(series: Series, name: str) -> Values:
    """A metric's values [steps]; none when it was never reported."""
    return np.asarray(series.get(name, ()), dtype=np.float64)


def median(values: Values) -> float:
    """Of what is measured; NaN when nothing is."""
    finite = measured(values)
    return float(np.median(finite)) if len(finite) else math.nan


def spread(values: Values) -> float:
    """Standard deviation as the median absolute deviation tells it; NaN when nothing is measured."""
    finite = measured(values)
    return MAD_TO_STD * float(np.median(np.abs(finite - np.median(finite)))) if len(finite) else math.nan


def now(values: Values, num_steps: int) -> float:
    """Median of the last `num_steps` steps; NaN unless more than half of them were measured."""
    last = values[-num_steps:]
    return median(last) if 2 * len(measured(last)) > num_steps else math.nan


def before(values: Values, num_steps: int, window: int) -> Values:
    """What was measured in the `window` steps before the last `num_steps`."""
    return measured(values[: max(len(values) - num_steps, 0)][-window:])


def moving_mean(values: Values, num_steps: int) -> Values:
    """Means of `num_steps` measured values in a row, oldest first [measured - num_steps + 1, or 0]."""
    finite = measured(values)
    if len(finite) < num_steps:
        return np.zeros(0)
    return np.lib.stride_tricks.sliding_window_view(finite, num_steps).mean(axis=1)
