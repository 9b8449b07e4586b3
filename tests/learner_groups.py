"""Groups of trajectories for tests of the learner: random tokens, chosen rewards."""

from __future__ import annotations

import numpy as np

from envs.records import Candidate, SignalRange, Task, Trajectory, TrajectoryGroup, Turn
from tests.tiny_model import VOCAB


def make_group(
    rewards: list[list[float]],
    *,
    index: int = 0,
    seed: int = 0,
    anchors: list[list[str]] | None = None,
    invalid: list[list[bool]] | None = None,
    forced: int = 1,
    version: int = 0,
    logprob: float = -5.7,
) -> TrajectoryGroup:
    """One group; rewards[i][t] is the reward of trajectory i's turn t. The last `forced` tokens are forced."""
    rng = np.random.default_rng([seed, index])
    task = Task(env="alfworld", panel="train", index=index, id=f"task-{index}", kind="walk")
    trajectories = []
    for sibling, turn_rewards in enumerate(rewards):
        turns = tuple(
            _turn(
                rng,
                reward,
                anchors[sibling][number] if anchors else f"state {rng.integers(3)}",
                bool(invalid[sibling][number]) if invalid else False,
                forced,
                version,
                logprob,
                done=number == len(turn_rewards) - 1,
            )
            for number, reward in enumerate(turn_rewards)
        )
        trajectories.append(
            Trajectory(
                id=f"run/{index}/{sibling}/0",
                group_id=f"group-{index}",
                task=task,
                sibling=sibling,
                attempt=0,
                turns=turns,
                won=sum(turn_rewards) > 0,
                duration_s=1.0,
            )
        )
    return TrajectoryGroup(id=f"group-{index}", index=index, task=task, trajectories=tuple(trajectories))


def make_candidate(
    rng: np.random.Generator, forced: int, version: int, logprob: float, length: int | None = None
) -> Candidate:
    length = int(rng.integers(4, 12)) if length is None else length
    flags = np.zeros(length, dtype=np.bool_)
    if forced:
        flags[-forced:] = True
    values = np.where(flags, np.nan, 0.5).astype(np.float32)
    return Candidate(
        token_ids=rng.integers(1, VOCAB, size=length).astype(np.int32),
        logprobs=np.where(flags, 0.0, logprob).astype(np.float32),
        forced=flags, entropy=values, uncertainty=values, text="", phi=0.4, gamma=float("nan"), kept=True,
        fired="uncertainty" if forced else "", fired_at=length - forced if forced else -1, num_think_tokens=3,
        finish_reason="stop", seed=0, min_version=version, max_version=version, range_after=SignalRange(),
    )  # fmt: skip


def _turn(
    rng: np.random.Generator, reward: float, observation: str, invalid: bool, forced: int, version: int,
    logprob: float, done: bool,
) -> Turn:  # fmt: skip
    return Turn(
        prompt_ids=rng.integers(1, VOCAB, size=rng.integers(5, 40)).astype(np.int32),
        accepted=make_candidate(rng, forced, version, logprob),
        rejected=(make_candidate(rng, 0, version, logprob),) if rng.random() < 0.3 else (),
        observation=observation, action="go", format_valid=not invalid, valid=not invalid, reward=reward,
        done=done, next_observation="next",
    )  # fmt: skip


def random_groups(
    count: int, siblings: int = 4, turns: int = 4, seed: int = 0, version: int = 0
) -> list[TrajectoryGroup]:
    """Groups in which about half of the trajectories win at their last turn."""
    rng = np.random.default_rng(seed)
    groups = []
    for index in range(count):
        lengths = rng.integers(1, turns + 1, size=siblings)
        rewards = [[0.0] * (int(n) - 1) + [10.0 * float(rng.random() < 0.5)] for n in lengths]
        invalid = [[bool(rng.random() < 0.1) for _ in range(int(n))] for n in lengths]
        groups.append(make_group(rewards, index=index, seed=seed, invalid=invalid, version=version))
    return groups
