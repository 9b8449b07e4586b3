"""A stall names its cause: what is said where a run stands still, and where it does not."""

from __future__ import annotations

import math

from controller.deadline import Wait
from controller.parts_file import Part
from controller.stall_cause import NOTE_AFTER_S, StallNotes, cause_of_stall, silent_parts

NOW = 1000.0


def parts(**doing: str) -> dict[str, Part]:
    return {name.replace("_", "-"): Part(text, NOW - 100, NOW - 1) for name, text in doing.items()}


def trajectories(count: int, for_s: float = 40.0) -> list[Wait]:
    return [Wait(f"trajectory r-g{index}", for_s, 600.0) for index in range(count)]


def test_stall_of_an_engine_that_starts() -> None:
    waits = [Wait("inference-1: starting", 41.2, 300.0), Wait("env-0: starting", 4.0, 300.0)]
    said = cause_of_stall(waits, parts(inference_1="starting engine", env_0="starting"), NOW)
    assert said == "waiting 41 s for inference-1: starting engine"


def test_stall_of_a_frozen_environment_actor() -> None:
    waits = [Wait("the groups of step 3", 30.0), *trajectories(12), Wait("env-0: status", 28.0, 60.0)]
    said = cause_of_stall(waits, parts(rollouts="12 trajectories under way", env_0="12 trajectories, 3 steps"), NOW)
    assert said == (
        "waiting 30 s for the groups of step 3: 12 trajectories under way, env-0 answers nothing since 28 s"
    )
    assert silent_parts(waits) == {"env-0": 28.0}


def test_stall_names_the_deepest_cause_first_and_not_all() -> None:
    waits = [Wait("inference-0: starting", 50.0, 300.0), Wait("router: status", 9.0, 60.0),
             Wait("queue: pull at redis://h", 7.0, 60.0), Wait("env-1: stopping", 12.0, 60.0)]  # fmt: skip
    assert cause_of_stall(waits, parts(inference_0="starting engine"), NOW) == (
        "waiting 9 s for router: it answers nothing, queue: pull at redis://h since 7 s, "
        "inference-0: starting engine since 50 s and 1 more"
    )


def test_stall_of_a_queue_server_that_is_away() -> None:
    waits = [Wait("the groups of step 3", 20.0), Wait("queue: pull at redis://h:1", 18.0, 60.0)]
    said = cause_of_stall(waits, parts(rollouts="0 trajectories under way, 4 groups"), NOW)
    assert said.endswith("0 trajectories under way, 4 groups, queue: pull at redis://h:1 since 18 s")


def test_stall_of_rollouts_without_a_free_slot_is_the_learner_at_work() -> None:
    waits = [Wait("learner: training step 3", 55.0, 900.0)]
    at_work = parts(learner="step 3: training on 4 groups", rollouts="no free slot: they wait for the next step")
    assert cause_of_stall(waits, at_work, NOW) == "waiting 55 s for learner: step 3: training on 4 groups"
    assert cause_of_stall([*waits, *trajectories(3)], at_work, NOW) == "", "both sides work"
    late = [Wait("learner: training step 3", 451.0, 900.0), *trajectories(3)]
    assert cause_of_stall(late, at_work, NOW).startswith("waiting 451 s for learner"), "half its deadline is over"


def test_stall_of_a_frozen_learner_is_not_a_step_that_takes_long() -> None:
    waits = [Wait("learner: training step 3", 55.0, 900.0), Wait("learner rank 1: status", 50.0, 60.0)]
    said = cause_of_stall(waits, parts(learner="step 3: training on 4 groups"), NOW)
    assert said == (
        "waiting 50 s for learner rank 1: it answers nothing, learner: step 3: training on 4 groups since 55 s"
    )


def test_stall_where_nothing_is_under_way_and_nobody_is_to_blame() -> None:
    said = cause_of_stall([Wait("the groups of step 3", 12.0)], parts(rollouts="no free slot"), NOW)
    assert said == "waiting 12 s for the groups of step 3: no free slot"


def test_stall_when_no_part_has_anything_new_to_say() -> None:
    waits = [Wait("the groups of step 3", 90.0), *trajectories(2)]
    still = {"env-0": Part("2 trajectories, 7 steps", NOW - 500, NOW - 80)}
    said = cause_of_stall(waits, still, NOW)
    assert said == "waiting 90 s for the groups of step 3: env-0 says nothing new since 80 s (2 trajectories, 7 steps)"
    assert cause_of_stall(waits, {**still, "env-1": Part("1 trajectories", NOW - 500, NOW - 2)}, NOW) == ""


def test_stall_is_none_while_all_goes_on() -> None:
    at_work = parts(rollouts="12 trajectories under way", env_0="12 trajectories, 3 steps", learner="waiting")
    waits = [Wait("the groups of step 3", 200.0), *trajectories(12, 250.0), Wait("env-0: status", 0.1, 60.0)]
    waits += [Wait("queue: pull", 1.9, 60.0), Wait("inference-0: weight update 3", 2.0, 120.0)]
    assert cause_of_stall(waits, at_work, NOW) == ""
    assert cause_of_stall([], {}, NOW) == ""


def test_stall_of_one_part_is_said_once() -> None:
    waits = [Wait("learner: starting", 41.0, 600.0), Wait("learner: 2 ranks meeting", 40.0, 300.0)]
    assert cause_of_stall(waits, parts(learner="starting: its ranks meet"), NOW) == (
        "waiting 41 s for learner: starting: its ranks meet"
    )


def test_stall_is_noted_when_it_lasts_and_then_seldom() -> None:
    notes = StallNotes()
    told = [second for second in range(400) if notes.observe(f"waiting {second} s for learner", float(second))]
    assert told == [30, 60, 120, 240]
    assert not notes.observe("", 401.0)
    again = [second for second in range(402, 800) if notes.observe(f"waiting {second} s for learner", float(second))]
    assert again == [], "it lasted less than twice as long as before"


def test_stall_with_another_cause_is_noted_for_itself() -> None:
    notes = StallNotes()
    assert not notes.observe("waiting 5 s for router", 0.0)
    assert not notes.observe("waiting 6 s for queue", NOTE_AFTER_S - 1)
    assert not notes.observe("waiting 7 s for queue", NOTE_AFTER_S + 1)
    assert notes.observe("waiting 9 s for queue", 2 * NOTE_AFTER_S)


def test_a_wait_without_a_colon_has_no_part() -> None:
    assert (Wait("the groups", 1.0, math.inf).part, Wait("a: b: c", 1.0).part, Wait("a: b: c", 1.0).task) == (
        "", "a", "b: c",
    )  # fmt: skip
