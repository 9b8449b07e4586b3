"""Demonstrations as text: what the scripted agent reads and replies on training tasks, in RL's own words.

Owns: `collect_demonstrations`. Called by the cold start. Must not know: tokenizers, models, training.
"""

from __future__ import annotations

import random

from controller.config import RunConfig
from envs.environment import find_environment
from envs.panel import load_panel
from envs.prompt import turn_message
from envs.seeds import derive_seed


def collect_demonstrations(config: RunConfig) -> list[tuple[str, str]]:
    """(message, reply) of demonstrated turns on training tasks, in the exact words of RL's prompts.

    Most turns of a trajectory search or hesitate; only a share of those is kept, so that the rare
    decisions (it is here: take it) are learned in the same few minutes. Unfounded turns are never kept.
    """
    environment = find_environment(config.env.name)
    panel = load_panel(config.env.name, config.env.train_panel)
    env = environment.make(config.env)
    turns: list[tuple[str, str]] = []
    kept = {
        "search": config.coldstart.kept_searches,
        "lamp": config.coldstart.kept_searches,
        "hesitate": config.coldstart.kept_detours,
        "unfounded": 0.0,
    }
    for number in range(config.coldstart.num_trajectories):
        task = panel.tasks[number % len(panel.tasks)]
        rng = random.Random(derive_seed(config.seed, "demonstration", number))
        observation, info = env.reset(options={"task": task})
        demonstrator = environment.demonstrator(task, config.env, rng, config.coldstart.detour_rate)
        history: list[tuple[str, str]] = []
        over = False
        while not over:
            message = turn_message(environment, config.env.prompt, config.env.memory, history, observation, info)
            turn = demonstrator.decide(observation, info)
            if rng.random() < kept.get(turn.plan, 1.0):
                turns.append((message, environment.write(turn)))
            history.append((observation, turn.action))
            observation, _, terminated, truncated, info = env.step(turn.action)
            over = terminated or truncated
    return turns
