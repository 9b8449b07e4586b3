"""What the chaos harness calls finished, ended with a cause, hung: on made-up lives and logs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from bench.chaos.conductor import cause_in
from bench.chaos.judge import ENDED, FINISHED, HUNG, NO_CAUSE, NOT_RESUMABLE, Evidence, Life, Verdict, judge_run

DONE = Life(0, "", 60.0)
SAID = Life(1, "PartLost: the learner died", 30.0)


def a_log(steps: int = 2) -> list[dict[str, Any]]:
    """One group a step, two trajectories a group."""
    log: list[dict[str, Any]] = []
    for index in range(steps):
        group = {"group": f"r-g{index:06d}"}
        names = {"trajectories": [f"g{index}/0/0", f"g{index}/1/0"]}
        log.append({"event": "issued", **group, "index": index, "task": f"t{index}", "step": index + 1})
        log.append({"event": "queued", **group, **names, "step": index + 1})
        log.append({"event": "trained", **group, **names, "step": index + 1})
        log.append({"event": "committed", "step": index + 1})
    return log


def judged(lives: Sequence[Life], log: list[dict[str, Any]] | None = None, hung: str = "") -> Verdict:
    events = a_log() if log is None else log
    return judge_run(
        Evidence(lives=lives, hung=hung, audit=events, steps=2, trajectories=4, task_of=lambda index: f"t{index}")
    )


def test_run_in_one_life_is_finished() -> None:
    found = judged([DONE])
    assert (found.outcome, found.causes, found.problems) == (FINISHED, (), ()) and found.good


def test_run_that_said_why_and_was_resumed_ended_with_a_cause() -> None:
    found = judged([SAID, Life(-9, "", 10.0, killed=True), DONE])
    assert found.outcome == ENDED and found.good
    assert found.causes == ("PartLost: the learner died", "killed by the harness")


def test_hung_run_is_not_good_and_says_where_it_stood() -> None:
    found = judged([SAID], hung="no progress for 600 s, step 1")
    assert found.outcome == HUNG and not found.good
    assert found.problems == ("hung: no progress for 600 s, step 1",)


@pytest.mark.parametrize("code", [1, -6, -9])
def test_life_that_did_not_say_why_is_a_problem_even_if_a_resume_finished(code: int) -> None:
    found = judged([Life(code, "", 10.0), DONE])
    assert found.outcome == NO_CAUSE and not found.good
    assert found.problems == (f"life 0: ended with {code} and no cause",)


def test_run_that_no_resume_finished_is_not_resumable() -> None:
    found = judged([SAID, SAID])
    assert found.outcome == NOT_RESUMABLE and not found.good


def test_process_left_behind_is_a_problem_of_a_finished_run() -> None:
    found = judged([Life(0, "", 60.0, left=("VLLM::EngineCore (pid 7, sleeping)",))])
    assert found.outcome == FINISHED and not found.good
    assert found.problems == ("life 0: left behind: VLLM::EngineCore (pid 7, sleeping)",)


def test_life_that_ended_undisturbed_is_a_problem() -> None:
    found = judged([Life(1, "PartLost: env-0", 30.0, disturbed=False), DONE])
    assert found.outcome == ENDED and not found.good
    assert "though nothing was done to it" in found.problems[0]


def test_lost_trajectory_is_a_problem() -> None:
    found = judged([DONE], [event for event in a_log() if event != a_log()[6]])
    assert not found.good
    assert any("2 trajectories are in a committed step, 4 were to be" in one for one in found.problems)
    assert any("2 trajectories are neither trained nor dropped: lost" in one for one in found.problems)


def test_trajectory_trained_twice_is_a_problem() -> None:
    log = a_log()
    log.insert(7, {**log[2], "step": 2})
    assert any("trained 2 times" in one for one in judged([DONE], log).problems)


def test_step_that_no_checkpoint_holds_is_a_problem() -> None:
    assert any("step 1 is committed, 2 were to be" in one for one in judged([DONE], a_log()[:-1]).problems)


def test_task_out_of_order_is_a_problem() -> None:
    log = a_log()
    log[0]["task"] = "t7"
    assert judged([DONE], log).problems == ("group r-g000000: task t7 instead of t0 of the panel",)


def test_unfinished_run_is_not_also_blamed_for_what_it_had_not_done() -> None:
    assert judged([SAID], a_log()[:4], hung="still").problems == ("hung: still",)


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("x\nthe run ended: PartLost: learner failed\ndetails: run.log\n", "PartLost: learner failed"),
        ("the run ended: first\nthe run ended: second\n", "second"),
        ("this life of the run ends: PartLost: Ray's raylet (pid 7) died\n", "PartLost: Ray's raylet (pid 7) died"),
        ("paused: KL is high; go on with: t2po\n", "paused: KL is high; go on with: t2po"),
        ("Fatal Python error: Aborted\n", ""),
        ("Traceback (most recent call last):\nValueError: 3\n", ""),
        ("", ""),
    ],
)
def test_cause_is_what_the_run_says_of_itself(said: str, cause: str) -> None:
    assert cause_in(said) == cause
