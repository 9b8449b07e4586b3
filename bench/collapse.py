"""The collapse observatory on recorded runs: when it warned, when it called a collapse, how long before success fell.

    python -m bench.collapse RUN_OR_FOLDER ... [--labels FILE] [--json] [--keep FOLDER]

A RUN is a folder with `metrics.jsonl`; a FOLDER holds such runs, or runs that `--keep` wrote: `NAME.jsonl.gz` with the
columns that detectors look at, and `runs.json` with each one's label, origin and use. FILE is such a `runs.json`. Every
run is replayed with the default settings, whatever it was run with.

Owns: the rows, the table, the format of kept runs.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from controller.collapse.baseline import Values, moving_mean
from controller.collapse.detection import INPUTS
from controller.collapse.finding import Level
from controller.collapse.observatory import Health
from controller.collapse.settings import CollapseSettings
from controller.metrics import StepMetrics, read_metrics
from controller.run_health import replay

MEAN_STEPS = 5
"""Success is judged as mean of so many steps, here as in the detectors."""

DIGITS = 5
"""Significant digits of a kept number: far finer than any threshold."""

LABELS = ("healthy", "collapsing")


@dataclass(frozen=True, slots=True)
class Row:
    """One run. Steps are None where the thing did not happen. `lead`: steps from the first warning to the halving of
    success, `lead_of_collapse` from the state collapsed. `warnings`, `collapses`: times that the state was entered."""

    run: str
    label: str
    use: str
    steps: int
    best: float
    last: float
    warned: int | None
    collapsed: int | None
    halved: int | None
    warnings: int
    collapses: int
    cause: str

    @property
    def lead(self) -> int | None:
        return None if self.halved is None or self.warned is None else self.halved - self.warned

    @property
    def lead_of_collapse(self) -> int | None:
        return None if self.halved is None or self.collapsed is None else self.halved - self.collapsed


def halved_at(steps: Sequence[StepMetrics]) -> int | None:
    """The step from which on success stays at half of its best or below: both as mean of `MEAN_STEPS` steps. A dip that
    comes back by itself is not a collapse."""
    means = moving_mean(_success(steps), MEAN_STEPS)
    best, found = -math.inf, None
    for index, mean in enumerate(means):
        best = max(best, float(mean))
        if mean > best / 2:
            found = None
        elif found is None:
            found = steps[index + MEAN_STEPS - 1].step
    return found


def row_of(name: str, steps: Sequence[StepMetrics], label: str = "?", use: str = "") -> Row:
    """ValueError for a run with fewer steps than a mean takes."""
    means = moving_mean(_success(steps), MEAN_STEPS)
    if not len(means):
        raise ValueError(f"{name}: has {len(steps)} steps; at least {MEAN_STEPS} with a success are needed")
    healths = replay(steps, CollapseSettings())
    warned = _entered(healths, Level.WARNING)
    collapsed = _entered(healths, Level.COLLAPSED)
    first = next((health for health in healths if health.level), Health())
    return Row(
        run=name, label=label, use=use, steps=len(steps), best=float(means.max()), last=float(means[-1]),
        warned=warned[0] if warned else None, collapsed=collapsed[0] if collapsed else None, halved=halved_at(steps),
        warnings=len(warned), collapses=len(collapsed), cause=first.causes[0] if first.causes else "",
    )  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = [
        "| run | label | used for | steps | best → last success | warning | collapsed | success halved "
        "| lead of warning | lead of collapse | warnings | first cause |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = (
            row.run, row.label, row.use, row.steps, f"{row.best:.0%} → {row.last:.0%}", _or_dash(row.warned),
            _or_dash(row.collapsed), _or_dash(row.halved), _or_dash(row.lead), _or_dash(row.lead_of_collapse),
            row.warnings, row.cause,
        )  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def read_kept(path: Path) -> list[StepMetrics]:
    """A run that `keep` wrote."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [
        StepMetrics(
            step=row.pop("step"),
            values={name: math.nan if value is None else value for name, value in row.items()},
            time=0.0,
        )
        for row in rows
    ]


def keep(path: Path, steps: Sequence[StepMetrics]) -> None:
    """The columns that detectors look at, in few digits; the same bytes for the same steps."""
    lines = []
    for step in steps:
        found = {name: step.values[name] for name in INPUTS if name in step.values}
        numbers = {
            name: float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None for name, value in found.items()
        }
        lines.append(json.dumps({"step": step.step, **numbers}) + "\n")
    path.write_bytes(gzip.compress("".join(lines).encode(), mtime=0))


def find(path: Path) -> dict[str, list[StepMetrics]]:
    """The runs of a run folder, of a folder of runs, or of a folder of kept runs, by name, sorted."""
    if (path / "metrics.jsonl").is_file():
        return {path.name: read_metrics(path / "metrics.jsonl")}
    kept = {file.name.removesuffix(".jsonl.gz"): read_kept(file) for file in sorted(path.glob("*.jsonl.gz"))}
    runs = {file.parent.name: read_metrics(file) for file in sorted(path.glob("*/metrics.jsonl"))}
    return kept | runs


def read_labels(path: Path) -> dict[str, dict[str, Any]]:
    """`{run: {"label": "healthy" | "collapsing", "use": ..., "made": ...}}`. ValueError names what is wrong."""
    labels = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for name, entry in labels.items():
        if entry.get("label") not in LABELS:
            raise ValueError(f"{path}: {name}: label {entry.get('label')!r}: use one of {', '.join(LABELS)}")
    return labels


def _success(steps: Sequence[StepMetrics]) -> Values:
    return np.array([step.values.get("success", math.nan) for step in steps])


def _entered(healths: Sequence[Health], level: Level) -> list[int]:
    """The steps in which the state came to this level or above from below it."""
    levels = [Level.HEALTHY, *(health.level for health in healths)]
    return [health.step for health, old in zip(healths, levels, strict=False) if old < level <= health.level]


def _or_dash(value: int | None) -> str:
    return "–" if value is None else str(value)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path, metavar="RUN_OR_FOLDER")
    parser.add_argument("--labels", type=Path, help="a runs.json; default: that of the folder")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="write the runs there, small")
    options = parser.parse_args()
    rows = []
    for path in options.paths:
        runs = find(path)
        if not runs:
            parser.error(f"{path}: no run there: give a run's folder, or one that holds runs")
        labels = read_labels(options.labels or path / "runs.json")
        for name, steps in runs.items():
            entry = labels.get(name, {})
            try:
                rows.append(row_of(name, steps, entry.get("label", "?"), entry.get("use", "")))
            except ValueError as error:
                print(f"left out: {error}", file=sys.stderr)
                continue
            if options.keep:
                options.keep.mkdir(parents=True, exist_ok=True)
                keep(options.keep / f"{name}.jsonl.gz", steps)
    rows.sort(key=lambda row: (row.label, row.use, row.run))
    print(json.dumps([asdict(row) for row in rows], indent=2) if options.json else table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
