"""Rejection: of the policy's own trajectories, those that are worth learning from, and how few of each task.

Owns: `Attempt`, what is kept and why not, the balance between tasks. Pure. Called by the cold start. Must not know:
how trajectories are played, files, tokenizers, training.

A reply that is kept is trained on as it was sampled, token for token, behind the prompt that it was sampled from.
Tokens that TTI forced stay in the text, since what follows was sampled behind them, but are not trained: they are not
the policy's choice, in the RL update they carry no gradient either, and the start policy is not to be taught the
intervention, or a run without TTI that begins from it would be one with TTI in disguise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from controller.interval import wilson_interval
from envs.records import Bool, Int32, Trajectory

TOO_LOW, REPEATED, NO_TURN, ENOUGH = "score too low", "same actions again", "no valid turn", "task has enough"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptTurn:
    """`prompt_ids` [P]; `reply_ids`, `forced` [R]. `valid`: in the strict format, and admissible."""

    prompt_ids: Int32
    reply_ids: Int32
    forced: Bool
    action: str
    valid: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One trajectory of the policy. `number` counts all that are asked for; without `turns` the score was too low."""

    number: int
    task_id: str
    score: float
    turns: tuple[AttemptTurn, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """`pairs`: (prompt ids, reply ids) to train on; `masks`: True at the reply tokens that were sampled."""

    pairs: tuple[tuple[Int32, Int32], ...]
    masks: tuple[Bool, ...]
    played: int
    tasks_played: int
    kept: int
    tasks_kept: int
    rejected: dict[str, int]
    """Trajectories by reason, in the order in which the reasons are looked at."""
    turns_invalid: int
    turns_repeated: int

    def lines(self) -> list[str]:
        """For a person; the interval is that of the share of trajectories that are kept."""
        low, high = wilson_interval(self.kept, self.played)
        forced, tokens = sum(int((~mask).sum()) for mask in self.masks), sum(map(len, self.masks))
        return [
            f"kept {self.kept} of {self.played} trajectories ({self.kept / max(self.played, 1):.1%} "
            f"[{low:.1%}, {high:.1%}]), of {self.tasks_kept} of {self.tasks_played} tasks",
            "  rejected: " + ", ".join(f"{count} {reason}" for reason, count in self.rejected.items()),
            f"  {len(self.pairs)} turns to train on; left out: {self.turns_invalid} invalid, {self.turns_repeated} "
            f"the same as another; {forced} of {tokens} reply tokens were forced and are read only",
        ]


def attempt_of(trajectory: Trajectory, number: int, min_score: float) -> Attempt:
    """What is remembered of a trajectory; of one that will not be kept only that it was played."""
    turns = trajectory.turns if trajectory.score > min_score else ()
    return Attempt(
        number=number,
        task_id=trajectory.task.id,
        score=trajectory.score,
        turns=tuple(
            AttemptTurn(
                prompt_ids=turn.prompt_ids,
                reply_ids=turn.accepted.token_ids,
                forced=turn.accepted.forced,
                action=turn.action,
                valid=turn.valid,
            )
            for turn in turns
        ),
    )


def select(attempts: Iterable[Attempt], min_score: float, max_per_task: int) -> Selection:
    """Keeps attempts with a score above `min_score`: of each task at most `max_per_task`, the shortest first (ties: the
    one asked for first), none with the actions of another. The order of `attempts` does not matter."""
    ordered = sorted(attempts, key=lambda one: one.number)
    rejected: Counter[str] = Counter({TOO_LOW: 0, REPEATED: 0, NO_TURN: 0, ENOUGH: 0})
    kept: list[Attempt] = []
    of_task: Counter[str] = Counter()
    seen: set[tuple[str, tuple[str, ...]]] = set()
    for attempt in sorted(ordered, key=lambda one: (len(one.turns), one.number)):
        actions = (attempt.task_id, tuple(turn.action for turn in attempt.turns))
        if not attempt.score > min_score:
            rejected[TOO_LOW] += 1
        elif actions in seen:
            rejected[REPEATED] += 1
        elif not any(turn.valid for turn in attempt.turns):
            rejected[NO_TURN] += 1
        elif of_task[attempt.task_id] >= max_per_task:
            rejected[ENOUGH] += 1
        else:
            kept.append(attempt)
            of_task[attempt.task_id] += 1
            seen.add(actions)
    kept.sort(key=lambda one: one.number)
    pairs, masks, repeated = _turns_of(kept)
    return Selection(
        pairs=tuple(pairs),
        masks=tuple(masks),
        played=len(ordered),
        tasks_played=len({attempt.task_id for attempt in ordered}),
        kept=len(kept),
        tasks_kept=len(of_task),
        rejected=dict(rejected),
        turns_invalid=sum(not turn.valid for attempt in kept for turn in attempt.turns),
        turns_repeated=repeated,
    )


def _turns_of(attempts: Sequence[Attempt]) -> tuple[list[tuple[Int32, Int32]], list[Bool], int]:
    """Each valid turn once, and how many came again."""
    pairs: list[tuple[Int32, Int32]] = []
    masks: list[Bool] = []
    seen: set[tuple[bytes, bytes]] = set()
    repeated = 0
    for turn in (turn for attempt in attempts for turn in attempt.turns if turn.valid):
        key = (turn.prompt_ids.tobytes(), turn.reply_ids.tobytes())
        if key in seen:
            repeated += 1
            continue
        seen.add(key)
        pairs.append((turn.prompt_ids, turn.reply_ids))
        masks.append(np.logical_not(turn.forced))
    return pairs, masks, repeated
