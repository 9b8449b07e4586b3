"""What lies in a run's folder, as read: nothing is reduced here.

Owns: reading a folder that may be of an older version, damaged, or written to at this moment: what cannot be read is
left out and named in `notes`. Called by `controller.report.collection`. Must not know: what the page shows.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.adjustments import FILE as ADJUSTMENTS
from controller.durable_files import RunFolderError
from controller.report.run_log import LogLine, read_log
from controller.run_folder import CONFIG, IDENTITY
from envs.file_mark import FileMark, mark_file

STEP_FILE = re.compile(r"step-(\d+)\.jsonl\.gz")
UNREADABLE = (OSError, ValueError)  # json's and tomllib's errors are ValueErrors


class ReportError(ValueError):
    """Something that a report was asked for and that cannot be; the message names it, the place and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFiles:
    """One run. `steps`: the lines of metrics.jsonl by step. `trajectories`: the step of each trajectory file."""

    name: str
    path: Path
    identity: dict[str, Any]
    config: dict[str, Any]
    versions: dict[str, Any]
    steps: dict[int, dict[str, Any]]
    audit: tuple[dict[str, Any], ...]
    events: tuple[dict[str, Any], ...]
    adjustments: tuple[dict[str, Any], ...]
    log: tuple[LogLine, ...]
    evaluations: tuple[dict[str, Any], ...]
    trajectories: dict[int, Path]
    notes: tuple[str, ...]

    @property
    def policy(self) -> Path | None:
        """The folder whose tokenizer spelled this run's replies; None when it is not on this machine."""
        model = str(self.config.get("model", ""))
        checkpoints = sorted((self.path / "checkpoints").glob("step-*/policy"), reverse=True)
        places = [*checkpoints, self.path / "policy", *([Path(model).expanduser()] if "/" in model else [])]
        return next((place for place in places if (place / "tokenizer_config.json").is_file()), None)


def read_run(path: Path) -> RunFiles:
    """Everything but the trajectories' content. Raises ReportError where there is no run folder."""
    path = path.absolute()
    if not path.is_dir():
        raise ReportError(f"{path}: no such run folder; name one, or a run below runs/")
    if not (path / CONFIG).is_file():
        raise ReportError(f"{path}: not a run folder: it has no {CONFIG}; name the folder that `t2po train` wrote")
    notes: list[str] = []
    try:
        config = tomllib.loads((path / CONFIG).read_text(encoding="utf-8"))
    except UNREADABLE as error:
        notes.append(f"{CONFIG} cannot be read: {error}")
        config = {}
    files = {int(match[1]): file for file in (path / "trajectories").glob("*") if (match := _step_of(file))}
    return RunFiles(
        name=path.name,
        path=path,
        identity=_object(path / IDENTITY, notes),
        config=config,
        versions=_object(path / "versions.json", notes),
        steps=_steps(path / "metrics.jsonl", notes),
        audit=tuple(_lines(path / "audit.jsonl", notes)),
        events=tuple(_lines(path / "events.jsonl", notes)),
        adjustments=tuple(_lines(path / ADJUSTMENTS, notes)),
        log=tuple(read_log(path / "run.log", notes)),
        evaluations=tuple(_evaluations(path / "evaluations", notes)),
        trajectories=dict(sorted(files.items())),
        notes=tuple(notes),
    )


def marks_of(path: Path) -> tuple[FileMark, ...]:
    """The state of all files of a run that a report is made from: while it is the same, so is the report."""
    names = (CONFIG, IDENTITY, "versions.json", "metrics.jsonl", "audit.jsonl", "events.jsonl", "run.log", ADJUSTMENTS)
    found = [path / name for name in names]
    found += [*(path / "evaluations").glob("*.json"), *(path / "trajectories").glob("*.gz")]
    marks = []
    for file in sorted(found):
        try:
            marks.append(mark_file(file))
        except ValueError:  # gone, or not there yet
            continue
    return tuple(marks)


def _step_of(file: Path) -> re.Match[str] | None:
    return STEP_FILE.fullmatch(file.name)


def _object(path: Path, notes: list[str]) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except UNREADABLE as error:
        if path.exists():
            notes.append(f"{path.name} cannot be read: {error}")
        return {}
    return value if isinstance(value, dict) else {}


def _steps(path: Path, notes: list[str]) -> dict[int, dict[str, Any]]:
    steps = {}
    for row in _lines(path, notes):
        if _is_number(row.get("step")):
            steps[int(row["step"])] = row
    return dict(sorted(steps.items()))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _lines(path: Path, notes: list[str]) -> Iterator[dict[str, Any]]:
    """The records of a JSON lines file. A last line without its end is one that is being written."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return
    except OSError as error:
        notes.append(str(RunFolderError.of(path, error, "read")))
        return
    num_bad = 0
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            num_bad += line.endswith(b"\n")
            continue
        if isinstance(record, dict):
            yield record
    if num_bad:
        notes.append(f"{path.name}: lines left out that are no JSON: {num_bad}")


def _evaluations(folder: Path, notes: list[str]) -> list[dict[str, Any]]:
    found = [_object(path, notes) for path in sorted(folder.glob("*.json"))]
    return sorted((one for one in found if one), key=lambda one: one["time"] if _is_number(one.get("time")) else 0.0)
