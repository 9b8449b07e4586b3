"""Run folders -> everything that a page shows, as one tree of plain values.

Owns: putting together what the other modules of this package reduce. Called by `controller.report.command` and
`controller.report.server`. Must not know: HTML, HTTP.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from controller.mishaps import mishap_line, mishaps
from controller.report.comparison import band, final_numbers, flat, sets_of
from controller.report.curves import by_kind, columns, describe, number, seconds
from controller.report.events import KINDS, events_of, is_taken_back, newest, resumes_of
from controller.report.excerpt import Pieces, StepExcerpt, Strings, excerpt_of, spread
from controller.report.run_files import RunFiles, read_run
from controller.report.summary import adjusted_knobs, algorithm_of, method_of, sentences
from controller.report.token_texts import load_decoder, piece_maker
from controller.report.trajectory_files import DAMAGED, read_outcomes, read_trajectories

FORMAT = 1
BUDGET = 3_500_000
"""Bytes of trajectories in a page, over all runs: with them a page opens at once and can be sent by mail."""
EVALUATION = (
    "label", "panel", "version", "success", "interval", "won", "played", "by_kind", "score", "turns", "tokens",
    "interventions",
)  # fmt: skip
"""What is shown of an evaluation."""
NUM_STEPS = 8
"""Steps of each run whose trajectories are shown unless another number is asked for."""


def collect(
    paths: Sequence[Path], num_steps: int | None = None, now: float | None = None, budget: int = BUDGET
) -> dict[str, Any]:
    """The tree. `num_steps`: steps of each run whose trajectories are shown; None: NUM_STEPS. Raises ReportError for
    what is no run."""
    files = [read_run(path) for path in paths]
    configs = [flat(one.config) for one in files]
    strings = Strings()
    parts = [_run(one, config) for one, config in zip(files, configs, strict=True)]
    sets = sets_of([one.name for one in files], configs)
    for one, part in zip(files, parts, strict=True):
        part["excerpt"] = _excerpt(one, NUM_STEPS if num_steps is None else num_steps, strings, budget // len(files))
    return {
        "format": FORMAT,
        "made": time.time() if now is None else now,
        "metrics": describe(name for part in parts for name in part["columns"]),
        "event_kinds": KINDS,
        "runs": parts,
        "sets": [
            {
                "label": one.label,
                "members": list(one.members),
                "differs": one.differs,
                "band": _band(parts, one.members),
            }
            for one in sets
        ],
        "strings": strings.texts,
    }


def _run(files: RunFiles, config: Mapping[str, Any]) -> dict[str, Any]:
    """All of one run but its trajectories."""
    steps, created = files.steps, seconds(files.identity.get("created"))
    table = columns(steps)
    times = [seconds(row.get("time")) for row in steps.values()]
    known = [one for one in times if one is not None]
    num_done, total = max(steps, default=0), config.get("steps")
    outcomes = {step: _outcomes(path) for step, path in files.trajectories.items()}
    resumes = resumes_of(files.audit)
    evaluations = [row for row in files.evaluations if not is_taken_back(row.get("version"), row.get("time"), resumes)]
    trouble = mishap_line(mishaps(_measured(row) for row in steps.values()))
    events, left_out = newest(events_of(files.audit, files.events, files.log, files.evaluations, steps, created))
    return {
        "name": files.name,
        "recipe": str(files.identity.get("recipe", "")),
        "algorithm": algorithm_of(config),
        "method": method_of(config),
        "seed": config.get("seed"),
        "model": str(config.get("model", "")),
        "environment": str(config.get("env.name", "")),
        "created": created,
        "last": known[-1] if known else None,
        "total": total if isinstance(total, int) else None,
        "done": num_done,
        "ended": any(row.get("label") == "after" and row.get("version") == num_done for row in evaluations),
        "sentences": sentences(config, num_done, table, evaluations, trouble),
        "evaluations": [{name: row.get(name) for name in EVALUATION} for row in evaluations],
        "steps": list(steps),
        "times": times,
        "columns": table,
        "events": [[one.kind, one.step, one.text] for one in events],
        "kinds": {"steps": list(outcomes), "table": by_kind(outcomes)},
        "final": final_numbers(table, evaluations, known),
        "versions": {str(key): str(value) for key, value in files.versions.items()},
        "config": {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in config.items()},
        "adjustments": adjusted_knobs(config, files.adjustments),
        "notes": [*files.notes, *left_out],
    }


def _measured(row: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: number(value) for name, value in row.items()}


def _outcomes(path: Path) -> list[tuple[str, bool]]:
    try:
        return [(one.kind, one.won) for one in read_outcomes(path)]
    except ValueError:  # gone since the folder was listed
        return []


def _band(parts: Sequence[Mapping[str, Any]], members: Sequence[int]) -> dict[str, Any] | None:
    """None for a set of one: its curve is the run's own."""
    if len(members) < 2:
        return None
    return band([parts[one]["steps"] for one in members], [parts[one]["columns"] for one in members])


def _excerpt(files: RunFiles, num_steps: int, strings: Strings, budget: int) -> dict[str, Any]:
    """The chosen steps, and in words what was left out."""
    chosen = spread(list(files.trajectories), num_steps)
    pieces, note = _pieces(files) if chosen else (None, "")
    notes = [note] if note else []
    found: list[StepExcerpt] = []
    used = 0
    for place, step in enumerate(reversed(chosen)):  # the newest first: what it leaves over goes to the older ones
        share = (budget - used) // (len(chosen) - place)
        rows: list[dict[str, Any]] = []
        try:
            rows.extend(read_trajectories(files.trajectories[step]))
        except DAMAGED as error:
            notes.append(f"{files.trajectories[step].name} cannot be read to its end: {error}")
        found.append(excerpt_of(step, rows, pieces, strings, share))
        used += found[-1].num_bytes
    return {
        "steps": [
            {"step": one.step, "shown": one.shown, "trajectories": one.num_trajectories, "groups": one.num_groups}
            for one in reversed(found)
        ],
        "steps_written": len(files.trajectories),
        "notes": notes,
    }


def _pieces(files: RunFiles) -> tuple[Pieces | None, str]:
    """What divides replies into tokens, or why nothing does."""
    folder = files.policy
    if folder is None:
        return (
            None,
            "No tokenizer: neither a checkpoint nor the model's folder is on this machine; replies are shown as text.",
        )
    try:
        return piece_maker(load_decoder(folder)), ""
    except (OSError, ValueError, ImportError) as error:
        return (
            None,
            f"The tokenizer of {folder.parent.name}/{folder.name} does not load ({error}); replies are shown as text.",
        )
