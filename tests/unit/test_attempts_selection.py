"""Which of the policy's own trajectories are trained on: above the score, once, few of each task, valid turns only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.attempt_collection import as_json, read_attempts
from controller.attempts import ENOUGH, NO_TURN, REPEATED, TOO_LOW, Attempt, AttemptTurn, attempt_of, select
from controller.durable_files import JsonLines
from envs.records import Task, Trajectory, Turn
from tests.fakes import make_candidate


def turn(action: str, *, valid: bool = True, prompt: int = 1, forced: int = 0) -> AttemptTurn:
    reply = np.frombuffer(action.encode(), dtype=np.uint8).astype(np.int32)
    return AttemptTurn(
        prompt_ids=np.array([prompt], dtype=np.int32),
        reply_ids=reply,
        forced=np.arange(len(reply)) < forced,
        action=action,
        valid=valid,
    )


def attempt(number: int, task: str, *actions: str, score: float = 1.0) -> Attempt:
    turns = tuple(turn(action, prompt=1000 * number + place) for place, action in enumerate(actions))
    return Attempt(number=number, task_id=task, score=score, turns=turns)


def replies(pairs: tuple[tuple[np.ndarray, np.ndarray], ...]) -> list[str]:
    return [bytes(reply.astype(np.uint8)).decode() for _, reply in pairs]


def test_keeps_what_is_above_the_score() -> None:
    scores = [0.0, 0.5, 0.9, 0.91, 1.0]
    chosen = select([attempt(n, str(n), f"do {n}", score=score) for n, score in enumerate(scores)], 0.9, 2)
    assert replies(chosen.pairs) == ["do 3", "do 4"]
    assert (chosen.kept, chosen.played, chosen.tasks_kept, chosen.tasks_played) == (2, 5, 2, 5)
    assert chosen.rejected == {TOO_LOW: 3, REPEATED: 0, NO_TURN: 0, ENOUGH: 0}


def test_keeps_the_shortest_of_an_easy_task_and_no_more_than_told() -> None:
    easy = [attempt(0, "easy", "a", "b", "c"), attempt(1, "easy", "d"), attempt(2, "easy", "e", "f")]
    hard = [attempt(3, "hard", "g", "h", "i", "j")]
    chosen = select([*easy, *hard], 0.9, 2)
    assert replies(chosen.pairs) == ["d", "e", "f", "g", "h", "i", "j"]
    assert chosen.rejected[ENOUGH] == 1


def test_keeps_one_of_those_with_the_same_actions() -> None:
    twice = [attempt(0, "t", "a", "b"), attempt(1, "t", "a", "b"), attempt(2, "other", "a", "b")]
    chosen = select(twice, 0.9, 9)
    assert chosen.kept == 2 and chosen.rejected[REPEATED] == 1


def test_leaves_out_invalid_turns_and_those_that_came_before() -> None:
    good, bad = turn("a"), turn("b", valid=False)
    chosen = select(
        [
            Attempt(number=0, task_id="t", score=1.0, turns=(good, bad)),
            Attempt(number=1, task_id="t", score=1.0, turns=(good, turn("c"))),
            Attempt(number=2, task_id="t", score=1.0, turns=(bad,)),
        ],
        0.9,
        9,
    )
    assert replies(chosen.pairs) == ["a", "c"]
    assert (chosen.turns_invalid, chosen.turns_repeated, chosen.rejected[NO_TURN]) == (1, 1, 1)


def test_forced_tokens_are_read_and_not_trained() -> None:
    chosen = select([Attempt(number=0, task_id="t", score=1.0, turns=(turn("abc", forced=2),))], 0.9, 1)
    assert chosen.masks[0].tolist() == [False, False, True]
    assert "2 of 3 reply tokens were forced" in chosen.lines()[-1]


attempts = st.lists(
    st.tuples(st.sampled_from("xyz"), st.sampled_from([0.0, 0.9, 1.0]), st.lists(st.sampled_from("ab"), min_size=1)),
    max_size=12,
)


@given(rows=attempts, most=st.integers(1, 3), data=st.data())
def test_selection_counts_everyone_once_in_any_order(rows, most, data) -> None:  # type: ignore[no-untyped-def]
    played = [attempt(number, task, *actions, score=score) for number, (task, score, actions) in enumerate(rows)]
    chosen = select(played, 0.9, most)
    assert chosen.kept + sum(chosen.rejected.values()) == chosen.played == len(played)
    assert chosen.kept <= most * chosen.tasks_kept <= most * chosen.tasks_played
    shuffled = select(data.draw(st.permutations(played)), 0.9, most)
    assert replies(shuffled.pairs) == replies(chosen.pairs) and shuffled.lines() == chosen.lines()
    if any(one.score > 0.9 for one in played):
        assert chosen.pairs


def trajectory(score: float) -> Trajectory:
    candidate = make_candidate("<think> so </think> <action>go</action>")
    forced = np.arange(len(candidate.token_ids)) == 1
    played = Turn(
        prompt_ids=np.array([4, 5], dtype=np.int32), accepted=replace(candidate, forced=forced), rejected=(),
        observation="a room", action="go", format_valid=True, valid=True, reward=0.0, done=True, next_observation="",
    )  # fmt: skip
    return Trajectory(
        id="g/0/0", group_id="g", task=Task(env="alfworld", panel="p", index=0, id="t", kind="k"),
        sibling=0, attempt=0, turns=(played,), won=score == 1.0, duration_s=1.0, score=score,
    )  # fmt: skip


def test_an_attempt_comes_back_from_its_file_and_a_half_written_one_does_not(tmp_path: Path) -> None:
    file = tmp_path / "attempts.jsonl"
    lines = JsonLines(file)
    whole = attempt_of(trajectory(1.0), 7, 0.9)
    lines.append(as_json(whole))
    lines.append(as_json(attempt_of(trajectory(0.5), 8, 0.9)))
    lines.close()
    with file.open("ab") as end:
        end.write(b'{"number": 9, "ta')
    known = read_attempts(file)
    assert sorted(known) == [7, 8]
    assert known[8].turns == () and known[8].score == 0.5
    back = known[7].turns[0]
    assert np.array_equal(back.prompt_ids, whole.turns[0].prompt_ids)
    assert np.array_equal(back.reply_ids, whole.turns[0].reply_ids)
    assert np.array_equal(back.forced, whole.turns[0].forced) and back.forced.sum() == 1
    assert (back.action, back.valid) == ("go", True)
    assert select(known.values(), 0.9, 1).masks[0].tolist() == (~back.forced).tolist()


@pytest.mark.parametrize("kept", [True, False])
def test_a_trajectory_that_will_not_be_kept_is_only_counted(kept: bool) -> None:
    assert bool(attempt_of(trajectory(0.95), 0, 0.9 if kept else 0.95).turns) == kept
