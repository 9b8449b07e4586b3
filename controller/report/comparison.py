"""Several runs side by side: which of them differ in the seed alone, and what they have in common as one curve.

Owns: sets of runs, what differs between the sets, bands, the table of final numbers. Called by
`controller.report.collection`. Must not know: files, how a band is drawn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.report.curves import Column, mean_of, number

SEED_ALONE = frozenset({"seed", "name", "runs_dir", "metrics.port"})
"""Settings that may differ between runs of one set: they change neither the task nor the method."""
LAST_STEPS = 10
"""Steps that a final number is the mean of."""


@dataclass(frozen=True, slots=True)
class RunSet:
    """Runs that repeat each other. `members`: their places in the list of runs; `differs`: setting -> this set's."""

    label: str
    members: tuple[int, ...]
    differs: dict[str, str]


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Sections of settings -> `section.key` -> value."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def sets_of(names: Sequence[str], configs: Sequence[Mapping[str, Any]]) -> list[RunSet]:
    """Runs, by name and flat configuration -> sets in the order of their first members. A setting that only one
    version of t2po knows counts as differing, and is said to be absent in the other."""
    members: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for place, config in enumerate(configs):
        key = tuple(sorted((name, _word(value)) for name, value in config.items() if name not in SEED_ALONE))
        members.setdefault(key, []).append(place)
    kept = [dict(key) for key in members]
    keys = sorted({name for one in kept for name in one}, key=lambda name: ("." in name, name))
    differing = [name for name in keys if len({one.get(name) for one in kept}) > 1]
    labels = _labels([names[places[0]] for places in members.values()], kept, differing)
    return [
        RunSet(label, tuple(places), {name: one.get(name, "absent") for name in differing})
        for label, places, one in zip(labels, members.values(), kept, strict=True)
    ]


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _labels(names: list[str], configs: list[dict[str, str]], differing: list[str]) -> list[str]:
    """Names of the runs without seed and time; where two are alike, with the settings that tell them apart."""
    plain = [re.sub(r"(-s\d+)?(-\d{8}-\d{6})?$", "", name) or name for name in names]
    if len(set(plain)) == len(plain):
        return plain
    telling: list[str] = []
    for key in differing:
        if _num_told_apart(configs, [*telling, key]) > _num_told_apart(configs, telling):
            telling.append(key)
    told = [", ".join(f"{key} {_end_of(one.get(key, 'absent'))}" for key in telling) for one in configs]
    found = [f"{name} ({text})" if text else name for name, text in zip(plain, told, strict=True)]
    return found if len(set(found)) == len(found) else [f"{name} #{place}" for place, name in enumerate(found, start=1)]


def _num_told_apart(configs: list[dict[str, str]], keys: list[str]) -> int:
    return len({tuple(one.get(key) for key in keys) for one in configs})


def _end_of(value: str) -> str:
    """The last part of a path says enough."""
    return value.rstrip("/").rpartition("/")[2] or value


def band(steps: Sequence[Sequence[int]], columns: Sequence[Mapping[str, Column]]) -> dict[str, Any]:
    """Curves of one set's runs -> `steps` and for each metric `mean`, `low`, `high` (the smallest and largest value)
    and `runs`, how many had measured it, at each step that any run has."""
    every = sorted({step for one in steps for step in one})
    names = dict.fromkeys(name for one in columns for name in one)
    places = [{step: place for place, step in enumerate(one)} for one in steps]
    table: dict[str, dict[str, list[Any]]] = {}
    for name in names:
        rows: dict[str, list[Any]] = {"mean": [], "low": [], "high": [], "runs": []}
        for step in every:
            values = _values_at(step, places, [one.get(name) for one in columns])
            rows["mean"].append(number(sum(values) / len(values)) if values else None)
            rows["low"].append(min(values, default=None))
            rows["high"].append(max(values, default=None))
            rows["runs"].append(len(values))
        table[name] = rows
    return {"steps": every, "columns": table}


def _values_at(step: int, places: list[dict[int, int]], columns: list[Column | None]) -> list[float]:
    found = []
    for place, column in zip(places, columns, strict=True):
        value = column[place[step]] if column and step in place else None
        if value is not None:
            found.append(value)
    return found


def final_numbers(
    columns: Mapping[str, Column], evaluations: Sequence[Mapping[str, Any]], times: Sequence[float]
) -> dict[str, float | None]:
    """What one run came to. Means are over the last ten steps."""

    def last(name: str) -> float | None:
        return mean_of(columns.get(name, [])[-LAST_STEPS:])

    def largest(name: str) -> float | None:
        return max((value for value in columns.get(name, []) if value is not None), default=None)

    found = {
        **evaluated(evaluations),
        "success": last("success"),
        "best moving success": largest("success_moving"),
        "turns": last("turns"),
        "tokens of a trajectory": last("trajectory_tokens"),
        "invalid turns": last("invalid"),
        "entropy": last("entropy"),
        "thoughts cut": last("forced_share"),
        "turns sampled again": last("resampled_turns"),
        "largest gradient norm": largest("grad_norm"),
        "largest mismatch KL": largest("mismatch_kl"),
        "seconds a step": mean_of(columns.get("step_s", [])),
        "minutes of training": (times[-1] - times[0]) / 60 if len(times) > 1 else None,
    }
    return {name: number(value) for name, value in found.items()}


def evaluated(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Success of the newest evaluation before and after training, by name and panel: panels are not alike."""
    found: dict[str, float | None] = {}
    for label in ("before", "after"):
        for row in evaluations:
            if row.get("label") == label and "success" in row:
                found[f"evaluated {label} on {row.get('panel', '?')}"] = number(row["success"])
    return found
