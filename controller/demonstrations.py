"""Demonstrations as text: what the scripted agent reads and replies on training tasks, in RL's own words.

Owns: `collect_demonstrations`. Called by the cold start. Must not know: tokenizers, models, training.
"""

from __future__ import annotations

import random

from controller.config import RunConfig
from envs.panel import load_panel
from envs.seeds import derive_seed


def collect_demonstrations(config: RunConfig) -> list[tuple[str, str]]:
    """(message, reply) of demonstrated turns on training tasks, in the exact words of RL's prompts.

    Most turns of a trajectory search or hesitate; only a share of those is kept, so that the rare
    decisions (it is here: take it) are learned in the same few minutes.
    """
    from envs.alfworld.demonstration import Demonstrator
    from envs.alfworld.expert import read_task
    from envs.prompt import turn_message
    from envs.text_env import make_env

    panel = load_panel(config.env.name, config.env.train_panel)
    env = make_env(config.env)
    turns: list[tuple[str, str]] = []
    kept = {
        "search": config.coldstart.kept_searches,
        "lamp": config.coldstart.kept_searches,
        "hesitate": config.coldstart.kept_detours,
    }
    for number in range(config.coldstart.num_trajectories):
        task = panel.tasks[number % len(panel.tasks)]
        rng = random.Random(derive_seed(config.seed, "demonstration", number))
        observation, info = env.reset(options={"task": task})
        demonstrator = Demonstrator(read_task(info["goal"]), rng, config.coldstart.detour_rate)
        history: list[tuple[str, str]] = []
        over = False
        while not over:
            message = turn_message(config.env.prompt, config.env.memory, history, observation, info)
            command, thought = demonstrator.decide(info["admissible"])
            if rng.random() < kept.get(demonstrator.plan, 1.0):
                turns.append((message, f"<think>{thought}</think>\n<action>{command}</action>"))
            history.append((observation, command))
            observation, _, terminated, truncated, info = env.step(command)
            over = terminated or truncated
    return turns
