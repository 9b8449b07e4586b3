"""The picture of what the processes of a run use, over its trajectories: memory and file handles by role.

Owns: the picture. Called by `bench.flat_memory`. Must not know: what counts as flat.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from controller.metrics import StepMetrics
from controller.process_roles import PROCESS_ROLES

MEASURES = {"memory_mb": "resident memory, MB", "fds": "file handles"}


def draw(steps: Sequence[StepMetrics], file: Path) -> None:
    """Writes an SVG or PNG, as the file's name says. A role that was never measured has no line."""
    from matplotlib.figure import Figure

    done = np.cumsum([step.values.get("trajectories", 0.0) for step in steps])
    figure = Figure(figsize=(10, 7), layout="constrained")
    shown = {}
    for axes, (measure, title) in zip(figure.subplots(len(MEASURES), 1, sharex=True), MEASURES.items(), strict=True):
        for number, role in enumerate(PROCESS_ROLES):
            values = [step.values.get(f"{measure}_{role}", np.nan) for step in steps]
            if np.isfinite(values).any():
                colour = f"C{number % 10}"
                style = "-" if number < 10 else "--"
                (shown[role],) = axes.plot(done, values, style, color=colour, linewidth=1.2)
        axes.set_ylabel(title)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    axes.set_xlabel("trajectories trained")
    figure.legend(shown.values(), shown.keys(), loc="outside right upper")
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
