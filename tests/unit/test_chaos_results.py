"""The file of results and the table of recovery times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.chaos import results


def a_record(seed: int, recovery_s: float | None, outcome: str = "finished", done: bool = True) -> dict[str, Any]:
    fault = {"kind": "kill", "target": "engine", "at_s": 1.0 if done else None, "recovery_s": recovery_s}
    return {"seed": seed, "outcome": outcome, "good": True, "problems": [], "faults": [fault]}


def test_later_line_of_a_seed_counts(tmp_path: Path) -> None:
    for record in (a_record(1, 5.0), a_record(2, 6.0), a_record(1, 7.0)):
        results.add(tmp_path, record)
    found = results.read(tmp_path)
    assert sorted(found) == [1, 2] and found[1]["faults"][0]["recovery_s"] == 7.0


def test_table_has_median_and_largest_recovery_and_what_was_not_done() -> None:
    rows = [a_record(0, 1.0), a_record(1, 2.0, "ended with a cause"), a_record(2, 9.0), a_record(3, None, done=False)]
    assert results.table(rows).splitlines()[-1] == (
        "| kill: engine | 3 | 1 | 2.0 | 9.0 | 1 ended with a cause, 2 finished |"
    )


def test_fault_that_the_run_never_recovered_from_is_counted_without_a_time() -> None:
    assert "| kill: engine | 1 |  |  |  | 1 hung |" in results.table([a_record(0, None, "hung")])


def test_summary_counts_outcomes_and_problems() -> None:
    rows = [a_record(0, 1.0), {**a_record(1, 1.0, "hung"), "problems": ["a", "b"]}]
    assert results.summary(rows).startswith("2 runs: 1 finished, 1 hung; 2 problems")
