"""Stand-ins for tests of the controller and the rollout: a scripted engine, a tiny game, a tokenizer.

They keep the interfaces of the real parts (docs/architecture.md) and nothing else. No stand-in is used
outside tests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np

from envs.records import Candidate, SignalRange, Task, Trajectory, TrajectoryGroup, Turn, TurnReply, TurnRequest

RIGHT = "<think>go</think><action>right</action>"


def make_candidate(text: str = RIGHT, phi: float = 0.5, **changes: Any) -> Candidate:
    """A Candidate of as many tokens as `text` has words."""
    length = max(1, len(text.split()))
    values: dict[str, Any] = {
        "token_ids": np.arange(length, dtype=np.int32),
        "logprobs": np.full(length, -1.0, dtype=np.float32),
        "forced": np.zeros(length, dtype=np.bool_),
        "entropy": np.full(length, 1.0, dtype=np.float32),
        "uncertainty": np.full(length, phi, dtype=np.float32),
        "text": text,
        "phi": phi,
        "gamma": float("nan"),
        "kept": True,
        "fired": "",
        "fired_at": -1,
        "num_think_tokens": 1,
        "finish_reason": "stop",
        "seed": 0,
        "min_version": 0,
        "max_version": 0,
        "range_after": SignalRange(entropy_min=0.0, entropy_max=1.0, confidence_min=0.0, confidence_max=1.0),
    }
    return Candidate(**{**values, **changes})


def make_task(index: int = 0) -> Task:
    return Task(env="corridor", panel="train", index=index, id=f"corridor-{index}", kind="walk", seed=index)


def make_turn(number: int = 0, action: str = "right", **changes: Any) -> Turn:
    values: dict[str, Any] = {
        "prompt_ids": np.array([1, 2, 3], dtype=np.int32),
        "accepted": make_candidate(),
        "rejected": (),
        "observation": f"You are at {number}.",
        "action": action,
        "format_valid": True,
        "valid": True,
        "reward": 0.0,
        "done": False,
        "next_observation": f"You are at {number + 1}.",
    }
    return Turn(**{**values, **changes})


def make_group(index: int, size: int = 2, turns: int = 2) -> TrajectoryGroup:
    group_id = f"run-g{index}"
    return TrajectoryGroup(
        id=group_id,
        index=index,
        task=make_task(index),
        trajectories=tuple(
            Trajectory(
                id=f"{group_id}/{sibling}/0",
                group_id=group_id,
                task=make_task(index),
                sibling=sibling,
                attempt=0,
                turns=tuple(make_turn(number) for number in range(turns)),
                won=False,
                duration_s=0.1,
            )
            for sibling in range(size)
        ),
    )


class FakeServer:
    """An inference server: `answer(number of the call, seed)` gives a Candidate or raises."""

    def __init__(self, name: str, answer: Callable[[int, int], Candidate], delay_s: float = 0.0) -> None:
        self.name = name
        self.answer = answer
        self.delay_s = delay_s
        self.request_ids: list[str] = []
        self.seeds: list[int] = []
        self.ranges: list[SignalRange] = []
        self.samplings: list[Any] = []
        self.epsilons: list[float | None] = []

    async def generate(
        self,
        request_id: str,
        prompt_ids: Any,
        seed: int,
        signal_range: SignalRange,
        sampling: Any,
        epsilon: float | None,
    ) -> Candidate:
        self.request_ids.append(request_id)
        self.seeds.append(seed)
        self.ranges.append(signal_range)
        self.samplings.append(sampling)
        self.epsilons.append(epsilon)
        await asyncio.sleep(self.delay_s)
        return self.answer(len(self.request_ids) - 1, seed)


class Corridor:
    """A game of `length` cells: `right` moves on, anything else does nothing; the last cell wins."""

    def __init__(self, length: int = 3, success_reward: float = 10.0) -> None:
        self.length = length
        self.success_reward = success_reward
        self.cell = 0
        self.actions: list[str] = []

    def _info(self) -> dict[str, Any]:
        return {"admissible": ["left", "right"], "goal": "reach the end", "won": self.cell >= self.length}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        self.cell = 0
        self.actions = []
        return "You are at 0.", self._info()

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.actions.append(action)
        if action == "right":
            self.cell += 1
        elif action == "left":
            self.cell = max(0, self.cell - 1)
        won = self.cell >= self.length
        return f"You are at {self.cell}.", self.success_reward if won else 0.0, won, False, self._info()


class WordTokenizer:
    """One id per word; grows as it reads. The chat template adds one closing word."""

    eos_token_id = 0

    def __init__(self) -> None:
        self.words: dict[str, int] = {"<eos>": 0}

    def apply_chat_template(self, conversation: Any, **options: Any) -> str:
        return str(conversation[0]["content"]) + " <reply>"

    def encode(self, text: str, **options: Any) -> list[int]:
        return [self.words.setdefault(word, len(self.words)) for word in text.split()]

    def read(self, ids: Any) -> str:
        names = {number: word for word, number in self.words.items()}
        return " ".join(names[int(number)] for number in ids)


class ScriptedRouter:
    """`request_turn` that answers with the given texts, one after another (the last one for ever)."""

    def __init__(self, *texts: str, phis: tuple[float, ...] = (0.5,)) -> None:
        self.texts = texts
        self.phis = phis
        self.requests: list[TurnRequest] = []

    async def __call__(self, request: TurnRequest) -> TurnReply:
        number = len(self.requests)
        self.requests.append(request)
        text = self.texts[min(number, len(self.texts) - 1)]
        phi = self.phis[min(number, len(self.phis) - 1)]
        after = SignalRange(entropy_min=0.0, entropy_max=float(number + 1), confidence_min=0.0, confidence_max=1.0)
        return TurnReply(accepted=make_candidate(text, phi, gamma=0.0, range_after=after), rejected=())
