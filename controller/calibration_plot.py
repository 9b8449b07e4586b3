"""The picture of a calibration: what each threshold would do, and what was chosen.

Owns: `draw_calibration`. Called by `controller.calibrate`. Must not know: how anything was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from controller.calibration import CutCurve

if TYPE_CHECKING:
    from controller.calibrate import Calibration


def draw_calibration(
    path: Path, curves: Mapping[int, CutCurve], gammas: npt.NDArray[np.float64], found: Calibration
) -> None:
    """Writes a PNG: the cut share by ε for several windows N, the resampled share by η, both distributions."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    (cut, again), (means, steps) = figure.subplots(2, 2)
    measured = gammas[np.isfinite(gammas)]

    for window, curve in curves.items():
        chosen = window == found.window
        cut.plot(curve.epsilon, curve.share, lw=2.2 if chosen else 1, alpha=1 if chosen else 0.5, label=f"N = {window}")
    cut.axhline(found.cut_target, color="grey", lw=0.8, ls="--")
    cut.axvline(found.epsilon, color="grey", lw=0.8, ls="--")
    cut.plot([found.epsilon], [found.cut_reached], "o", color="black", label="reached on fresh tasks")
    cut.set(title="thinking tokens cut", xlabel="ε", ylabel="share", xscale="log")
    cut.legend(fontsize=8)

    ordered = np.sort(measured)
    again.plot(ordered, np.arange(1, len(ordered) + 1) / max(len(gammas), 1))
    again.axhline(found.resampled_target, color="grey", lw=0.8, ls="--")
    again.axvline(found.eta, color="grey", lw=0.8, ls="--")
    again.plot([found.eta], [found.resampled_reached], "o", color="black", label="reached on fresh tasks")
    again.set(title="turns sampled again", xlabel="η", ylabel="share", xscale="log")
    again.legend(fontsize=8)

    lowest = curves[found.window].epsilon
    for axes, values, threshold, name in (
        (means, lowest, found.epsilon, f"mean of |ΔM| over the window (N = {found.window})"),
        (steps, measured, found.eta, "Γ of a turn"),
    ):
        shown = np.log10(np.maximum(values, 1e-6))
        axes.hist(shown, bins=60, color="tab:blue", alpha=0.7)
        axes.axvline(np.log10(max(threshold, 1e-6)), color="black", lw=1, ls="--", label=f"threshold {threshold:.3g}")
        axes.set(xlabel=f"log10 of the {name}", ylabel="count")
        axes.legend(fontsize=8)
    figure.suptitle(f"{found.num_thoughts} thoughts, {found.num_turns} turns; L_min = {found.min_tokens}")
    figure.savefig(path, dpi=110)
