"""How much memory one environment actor needs for many environments, and how fast it steps them.

    python -m bench.env_actor [--environments 128] [--turns 40]

A real Ray actor plays `--environments` ALFWorld trajectories side by side; the router is replaced by an actor
that answers at once with an admissible command, so what is measured is our side: prompts, tokens, Ray calls,
the game. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from actors.rollout import PlaySettings, TrajectorySpec
from controller.ray_session import RaySession
from envs.environment import find_environment
from envs.panel import load_panel
from envs.prompt import turn_message
from envs.records import Candidate, SignalRange, TurnReply, TurnRequest
from envs.settings import EnvSettings


def reply_of(action: str) -> TurnReply:
    zeros = np.zeros(30, np.float32)
    candidate = Candidate(
        token_ids=np.zeros(30, np.int32), logprobs=zeros, forced=np.zeros(30, np.bool_), entropy=zeros,
        uncertainty=zeros, text=f"<think>go on</think><action>{action}</action>", phi=0.5, gamma=0.1, kept=True,
        fired="", fired_at=-1, num_think_tokens=2, finish_reason="stop", seed=0, min_version=0, max_version=0,
        range_after=SignalRange(),
    )  # fmt: skip
    return TurnReply(accepted=candidate, rejected=())


class InstantRouter:
    """Answers every request at once with some command of the game."""

    def __init__(self) -> None:
        self._random = random.Random(0)

    async def request_turn(self, request: TurnRequest, sampling: str, unseen: tuple[Any, ...]) -> TurnReply:
        return reply_of(
            self._random.choice(("look", "inventory", "go to shelf 1", "go to cabinet 2", "open cabinet 2"))
        )


def make_tokenizer(folder: Path, panel: str) -> None:
    from learner.tiny_policy import train_tokenizer

    alfworld = find_environment("alfworld")
    env = alfworld.make(EnvSettings())
    messages = []
    for task in load_panel("alfworld", panel).tasks[:100]:
        observation, info = env.reset(options={"task": task})
        messages.append(turn_message(alfworld, "compact", 0, [], observation, info))
    replies = [f"<think>next: {c}.</think><action>{c}</action>" for c in info["admissible"]]
    train_tokenizer(messages, replies, alfworld.vocabulary(), alfworld.markers).save_pretrained(folder)


async def measure(environments: int, turns: int, tokenizer: Path) -> dict[str, Any]:
    import ray

    from actors.env_actor import EnvActor

    tasks = load_panel("alfworld", "train").tasks
    settings = PlaySettings(env=EnvSettings(max_turns=turns), prompt_tokens=448, env_step_timeout_s=30.0)
    router = ray.remote(num_cpus=0, max_concurrency=1000)(InstantRouter).remote()
    actor = EnvActor.remote(settings, str(tokenizer), (router,), 60.0)
    empty = (await actor.status.remote())["memory_mb"]
    specs = [
        TrajectorySpec(
            run_id="bench", group_id=f"g{index}", group_index=index, task=tasks[index % len(tasks)], sibling=0,
            attempt=0, sampling="train",
        )
        for index in range(environments)
    ]  # fmt: skip
    began = time.perf_counter()
    trajectories = await asyncio.gather(*(actor.run.remote(spec) for spec in specs))
    seconds = time.perf_counter() - began
    status = await actor.status.remote()
    steps = sum(len(trajectory.turns) for trajectory in trajectories)
    return {
        "environments": environments,
        "steps": steps,
        "steps_per_s": round(steps / seconds, 1),
        "memory_mb": round(status["memory_mb"], 1),
        "memory_mb_without_environments": round(empty, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environments", type=int, default=128)
    parser.add_argument("--turns", type=int, default=40)
    options = parser.parse_args()
    session = RaySession(None, object_store_bytes=256 * 2**20)
    with tempfile.TemporaryDirectory() as folder:
        make_tokenizer(Path(folder), "train")
        session.start()
        try:
            print(json.dumps(asyncio.run(measure(options.environments, options.turns, Path(folder)))))
        finally:
            session.stop()


if __name__ == "__main__":
    main()
