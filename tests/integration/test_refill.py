"""Groups that are left out of a step are replaced, the audit says so, and a resume goes on at the right group."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from controller.audit import judge_file
from tests.integration.quick_policy import make_quick_policy
from tests.integration.run_process import RunProcess

SIZE, REFILL, STEPS = 2, 3, 4


def groups_of(run: Path, step: int) -> dict[str, list[bool]]:
    """The groups that a step played, in order, and which of their trajectories won."""
    lines = gzip.decompress((run / "trajectories" / f"step-{step:08d}.jsonl.gz").read_bytes()).splitlines()
    found: dict[str, list[bool]] = {}
    for trajectory in map(json.loads, lines):
        found.setdefault(trajectory["group"], []).append(trajectory["won"])
    return found


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_refill_replaces_groups_without_signal_also_after_a_kill(tmp_path: Path) -> None:
    make_quick_policy(tmp_path / "policy")
    run = RunProcess(
        tmp_path, "refilled", f"steps={STEPS}", "checkpoint.every_steps=1", "eval.num_tasks=2", "eval.before=false",
        "algorithm=dapo", f"advantage.refill={REFILL}",
    )  # fmt: skip
    try:
        run.wait_for_step(2)
        run.kill()
        run.resume()
        assert run.finish() == 0, run.output()
    finally:
        run.end()
    next_index, dropped = 0, {}
    for step in range(1, STEPS + 1):
        groups = groups_of(run.folder, step)
        assert [int(name.rsplit("-g", 1)[1]) for name in groups] == [*range(next_index, next_index + len(groups))]
        next_index += len(groups)
        kept = [any(won) and not all(won) for won in groups.values()]
        assert sum(kept) == SIZE or len(groups) == SIZE * REFILL, "the step ended before it had enough"
        assert sum(kept[:-1]) < SIZE, "the step went on when it had enough"
        dropped |= {name: step for name, is_kept in zip(groups, kept, strict=True) if not is_kept}
        assert run.metrics()[step - 1]["groups_dropped"] == len(groups) - sum(kept)
    assert dropped, "every group had a signal: the test shows too little"
    report = judge_file(run.folder / "audit.jsonl")
    assert report.problems == []
    assert {name for name, verdict in report.groups.items() if verdict == "dropped"} == set(dropped)
    assert "live" not in report.groups.values(), "groups were played that no step took"
