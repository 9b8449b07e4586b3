"""What was recorded of real runs: how long trajectories are and how long each thing takes, as quantiles.

Owns: `recorded.json`, reading it, drawing from it, and making it from run folders:

    python -m bench.simulation.recorded RUN [RUN ...]

Called by `bench.simulation.stand_ins`. Must not know: what is done with a number.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from controller.metrics import read_metrics

FILE = Path(__file__).with_name("recorded.json")
POINTS = 41
"""Quantiles kept: 0 %, 2.5 %, ..., 100 %."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """Quantiles, evenly spaced. `turns` of a trajectory; `turn_s` of one turn, resamples and environment included;
    `prompt_tokens`, `reply_tokens`, `observation_chars`; `train_s` of a sample on one rank; `sync_s` of new weights."""

    source: str
    turns: Sequence[float]
    turn_s: Sequence[float]
    prompt_tokens: Sequence[float]
    reply_tokens: Sequence[float]
    observation_chars: Sequence[float]
    train_s: Sequence[float]
    sync_s: Sequence[float]


def draw(quantiles: Sequence[float], share: float) -> float:
    """The quantile at `share`, in [0, 1]; between two points on the line that joins them."""
    place = share * (len(quantiles) - 1)
    below = min(int(place), len(quantiles) - 2)
    return quantiles[below] + (quantiles[below + 1] - quantiles[below]) * (place - below)


def read_recorded(path: Path = FILE) -> Recorded:
    return Recorded(**json.loads(path.read_text(encoding="utf-8")))


def record(runs: Iterable[Path]) -> Recorded:
    """From the folders of finished runs. What the first step took is left out: engines compile in it."""
    found: dict[str, list[float]] = {name: [] for name in Recorded.__slots__ if name != "source"}
    names = []
    for run in runs:
        names.append(run.name)
        for step in read_metrics(run / "metrics.jsonl")[1:]:
            found["train_s"].append(step.values["train_s"] / step.values["samples"])
            found["sync_s"].append(step.values["weights_s"])
        for file in sorted((run / "trajectories").glob("*.gz"))[1:]:
            with gzip.open(file, "rt", encoding="utf-8") as lines:
                for line in lines:
                    _add(json.loads(line), found)
    source = f"{', '.join(names)}: {len(found['turns'])} trajectories, {len(found['prompt_tokens'])} turns"
    points = np.linspace(0, 100, POINTS)
    return Recorded(
        source=source, **{name: np.percentile(values, points).round(5).tolist() for name, values in found.items()}
    )


def _add(trajectory: dict[str, Any], found: dict[str, list[float]]) -> None:
    turns = trajectory["turns"]
    found["turns"].append(len(turns))
    found["turn_s"].append(trajectory["duration_s"] / len(turns))
    for turn in turns:
        found["prompt_tokens"].append(turn["prompt_tokens"])
        found["reply_tokens"].append(turn["tokens"])
        found["observation_chars"].append(len(turn["observation"]))


if __name__ == "__main__":
    made = record(map(Path, sys.argv[1:]))
    FILE.write_text(json.dumps({name: getattr(made, name) for name in Recorded.__slots__}) + "\n", encoding="utf-8")
    print(made.source)
