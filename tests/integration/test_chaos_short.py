"""A real run whose environment returns 10 MB, whose environment actor freezes for ever, whose engine dies, and whose
learner dies before a checkpoint.

The short form of `make chaos`: the same conductor and the same judge, four faults that are always the same.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from bench.chaos.conductor import conduct, make_policy
from bench.chaos.fault import Fault, Moment
from controller.run_status import status_lines

FAULTS = (
    Fault("environment", "returns 10 MB", Moment("play", group=0, turn=0)),
    Fault("freeze for ever", "env actor", Moment("step", 0, 0.5), math.inf),
    Fault("kill", "engine", Moment("step", 1)),
    Fault("kill before a checkpoint", "learner rank", Moment("unsaved", 2)),
)
SEED = 1000
"""Even: staleness 0, and one learner rank."""


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_run_that_is_frozen_and_killed_loses_nothing(tmp_path: Path) -> None:
    make_policy(tmp_path)
    found = conduct(SEED, FAULTS, tmp_path)
    log = (tmp_path / f"seed-{SEED}.log").read_text(encoding="utf-8")
    assert found["problems"] == (), log[-5000:]
    assert found["outcome"] in ("finished", "ended with a cause")
    assert [fault["at_s"] is not None for fault in found["faults"]] == [True] * 4, found["faults"]
    assert [fault["recovery_s"] is not None for fault in found["faults"]] == [True] * 4, found["faults"]

    told = next(line for line in status_lines(tmp_path / f"seed-{SEED}") if line.startswith("dealt with: "))
    assert "observations cut 1" in told and "restarts " in told and "env-0 1" in told
