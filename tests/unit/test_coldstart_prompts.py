"""The cold start trains on the prompts that RL uses, token by token (METHOD section 8, defect 10)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import numpy as np
import pytest

from actors.rollout import PlaySettings, TrajectorySpec, run_trajectory
from controller.config import RunConfig, validate
from controller.demonstrations import collect_demonstrations
from envs.chat import encode_prompt
from envs.environment import find_environment
from envs.panel import load_panel
from envs.records import Turn, TurnReply, TurnRequest
from envs.seeds import derive_seed
from envs.text_env import TextEnv
from learner.tiny_policy import train_tokenizer
from tests.fakes import make_candidate


class _Watched:
    """The environment, with its last info within reach of the scripted policy."""

    def __init__(self, env: TextEnv) -> None:
        self.env, self.said = env, ("", {})

    def reset(self, **options):  # type: ignore[no-untyped-def]
        self.said = self.env.reset(**options)
        return self.said

    def step(self, action: str):  # type: ignore[no-untyped-def]
        answer = self.env.step(action)
        self.said = answer[0], answer[4]
        return answer


def _play(config: RunConfig, number: int, tokenizer) -> list[Turn]:  # type: ignore[no-untyped-def]
    """Task `number` as the real rollout plays it when the policy replies what the demonstrator would; the turns that a
    cold start learns from."""
    plans = []
    task = load_panel(config.env.name, config.env.train_panel).tasks[number]
    environment = find_environment(config.env.name)
    env = _Watched(environment.make(config.env))
    rng = random.Random(derive_seed(config.seed, "demonstration", number))
    demonstrator = environment.demonstrator(task, config.env, rng, config.coldstart.detour_rate)

    async def reply(request: TurnRequest) -> TurnReply:
        turn = demonstrator.decide(*env.said)
        plans.append(turn.plan)
        rng.random()  # collect_demonstrations draws here whether the turn is kept
        return TurnReply(accepted=make_candidate(environment.write(turn)), rejected=())

    spec = TrajectorySpec(
        run_id="r", group_id="r/0", group_index=0, task=task, sibling=0, attempt=0, sampling="train"
    )  # fmt: skip
    settings = PlaySettings(env=config.env, prompt_tokens=100_000, env_step_timeout_s=10.0)
    played = asyncio.run(run_trajectory(env, spec, tokenizer, settings, reply))
    return [turn for turn, plan in zip(played.turns, plans, strict=True) if plan != "unfounded"]


@pytest.mark.parametrize("name", ["alfworld", "webshop", "search"])
@pytest.mark.parametrize("style", ["compact", "full"])
@pytest.mark.parametrize("memory", [0, 2, 5])
def test_demonstrated_prompts_are_the_rollouts_prompts(name: str, style: str, memory: int) -> None:
    tree = {
        "env": {"name": name, "prompt": style, "memory": memory},
        "coldstart": {"num_trajectories": 12, "kept_searches": 1.0, "kept_detours": 1.0},
    }
    config = validate(tree, "test")
    demonstrations: Iterator[tuple[str, str]] = iter(collect_demonstrations(config))
    environment = find_environment(config.env.name)
    tokenizer = train_tokenizer(["a"], ["b"], environment.vocabulary(), environment.markers)
    for number in range(12):
        for turn in _play(config, number, tokenizer):
            message, text = next(demonstrations)
            assert turn.accepted.text == text
            assert np.array_equal(turn.prompt_ids, encode_prompt(tokenizer, message)), message
    assert next(demonstrations, None) is None
