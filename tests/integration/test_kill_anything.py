"""Kill -9 of the queue's server, of the learner and of everything: nothing lost, nothing trained twice, same course.

The short form of `python -m bench.kill_resume`, which kills ten times at random moments.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.kill_resume import SETTINGS, Rhythm, compare, disturb, problems_of
from tests.integration.quick_policy import make_quick_policy
from tests.integration.run_process import RunProcess

STEPS = 5
TRAJECTORIES = STEPS * 2 * 3


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_run_that_is_killed_again_and_again_takes_the_course_of_one_that_is_left_alone(tmp_path: Path) -> None:
    make_quick_policy(tmp_path / "policy")
    runs: list[RunProcess] = []
    try:
        for name in ("calm", "disturbed"):
            runs.append(RunProcess(tmp_path, name, *SETTINGS, f"steps={STEPS}"))
            if name == "disturbed":
                kills = disturb(runs[-1], ("valkey", "learner", "all"), 0, Rhythm.of(runs[0]), STEPS)
            assert runs[-1].finish() == 0, runs[-1].output()
    finally:
        for run in runs:
            run.end()
    assert [kill.target for kill in kills][:2] == ["valkey", "learner"], "the run was faster than the kills"
    calm, disturbed = runs
    for run in runs:
        assert problems_of(run, STEPS, TRAJECTORIES) == []
    course = compare(calm, disturbed)
    assert course.updates > 0, "no step had a gradient: the test shows too little"
    assert course.numbers > 30
    assert course.same, course.differences
