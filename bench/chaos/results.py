"""The results of chaos runs: one JSON line a run, and the table of recovery times by kind of fault.

Owns: the file and the table. Called by `bench.chaos.__main__`. Must not know: how a run is made.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from controller.durable_files import JsonLines, read_json_lines

FILE = "results.jsonl"


def add(folder: Path, record: Mapping[str, Any]) -> None:
    """One line more; several processes may add at once."""
    lines = JsonLines(folder / FILE)
    lines.append(dict(record), sync=True)
    lines.close()


def read(folder: Path) -> dict[int, dict[str, Any]]:
    """By seed; of two lines with one seed the later."""
    return {int(record["seed"]): record for record in read_json_lines(folder / FILE)}


def summary(records: Iterable[Mapping[str, Any]]) -> str:
    """One line: how many runs, with which outcome, with how many problems of the audit."""
    rows = list(records)
    outcomes = Counter(row["outcome"] for row in rows)
    problems = sum(len(row["problems"]) for row in rows)
    return (
        f"{len(rows)} runs: {', '.join(f'{count} {name}' for name, count in sorted(outcomes.items()))}; "
        f"{problems} problems (lost, trained twice, out of order, left behind, undisturbed and yet ended)"
    )


def table(records: Iterable[Mapping[str, Any]]) -> str:
    """Markdown: a row for each kind of fault that was done."""
    times: dict[str, list[float]] = defaultdict(list)
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    skipped: dict[str, int] = Counter()
    for record in records:
        for fault in record["faults"]:
            name = f"{fault['kind']}: {fault['target']}"
            if fault["at_s"] is None:
                skipped[name] += 1
                continue
            outcomes[name][record["outcome"]] += 1
            if fault["recovery_s"] is not None:
                times[name].append(fault["recovery_s"])
    lines = [
        "| fault | n | not done | recovery, median s | max s | outcomes of the runs |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for name in sorted(outcomes.keys() | skipped.keys()):
        found = times[name]
        median, longest = (f"{statistics.median(found):.1f}", f"{max(found):.1f}") if found else ("", "")
        ends = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes[name].items()))
        lines.append(f"| {name} | {outcomes[name].total()} | {skipped[name] or ''} | {median} | {longest} | {ends} |")
    return "\n".join(lines)
