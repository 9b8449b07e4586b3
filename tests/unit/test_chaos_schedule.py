"""Which faults a seed draws: the same everywhere, every kind soon, none that cannot be done together."""

from __future__ import annotations

import math
import random
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from bench.chaos.fault import KINDS, PROCESSES, STEPS, Fault, draw, schedule
from bench.chaos.processes import KIND_OF


def test_schedule_is_the_same_in_another_process_with_another_hash_seed() -> None:
    program = "from bench.chaos.fault import schedule; print([schedule(seed) for seed in range(20)])"
    said = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": number, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True, text=True, timeout=60, check=True,
        ).stdout
        for number in ("1", "2")
    }  # fmt: skip
    assert said == {f"{[schedule(seed) for seed in range(20)]}\n"}


def test_every_kind_is_first_once_in_each_block_of_seeds() -> None:
    for block in range(3):
        seeds = range(block * len(KINDS), (block + 1) * len(KINDS))
        drawn = [{(fault.kind, fault.target) for fault in schedule(seed)} for seed in seeds]
        assert set().union(*drawn) == set(KINDS)


def test_100_seeds_have_every_kind_and_distinct_schedules() -> None:
    schedules = [schedule(seed) for seed in range(100)]
    counts = {kind: sum((f.kind, f.target) == kind for one in schedules for f in one) for kind in KINDS}
    assert min(counts.values()) >= 2, counts
    assert len(set(schedules)) == 100
    assert {len(one) for one in schedules} == {1, 2, 3}


@given(st.integers(0, 10**6))
def test_faults_of_a_schedule_go_together(seed: int) -> None:
    faults = schedule(seed)
    kinds = [(fault.kind, fault.target) for fault in faults]
    assert 1 <= len(faults) <= 3 and len(set(kinds)) == len(kinds)
    for alone in ("network", "environment", "clock"):
        assert sum(kind == alone for kind, _ in kinds) <= 1
    if any(kind == "network" for kind, _ in kinds):  # the queue is the harness's: no process of the run's
        assert not any(target in ("valkey", "full") for _, target in kinds)


@given(st.sampled_from(KINDS), st.integers(0, 10**6))
def test_moment_of_a_fault_is_one_that_comes(kind: tuple[str, str], seed: int) -> None:
    fault = draw(kind, random.Random(seed))
    moment = fault.moment
    assert fault.name == f"{kind[0]}: {kind[1]}" and 0 <= moment.step <= STEPS and fault.for_s >= 0
    assert (fault.kind == "environment") == (moment.when == "play")
    if moment.when == "unsaved":
        assert moment.step % 2 == 0 and moment.step > 0
    assert math.isinf(fault.for_s) == (fault.kind == "freeze for ever")
    assert isinstance(fault, Fault)


def test_every_process_kind_can_be_told() -> None:
    assert set(PROCESSES) == {"controller", *KIND_OF}
