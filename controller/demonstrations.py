"""Demonstrations as text: what the scripted agent reads and replies on training tasks, in RL's own words.

Owns: `collect_demonstrations` and the file of what was collected. Called by the cold start. Must not know:
tokenizers, models, training.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from controller.config import RunConfig
from controller.durable_files import JsonLines, read_json_lines
from envs.environment import find_environment
from envs.panel import load_panel
from envs.prompt import turn_message
from envs.seeds import derive_seed


def collect_demonstrations(config: RunConfig, file: Path | None = None) -> list[tuple[str, str]]:
    """(message, reply) of demonstrated turns on training tasks, in the exact words of RL's prompts.

    Most turns of a trajectory search or hesitate; only a share of those is kept, so that the rare
    decisions (it is here: take it) are learned in the same few minutes. Unfounded turns are never kept.

    `file` is taken up and added to, a line a trajectory: after a kill only what is not in it is played.
    """
    if file is None:
        return [turn for turns in _demonstrations(config, 0) for turn in turns]
    lines = JsonLines(file)
    try:
        known = [row["turns"] for row in read_json_lines(file)]
        collected = [(message, reply) for turns in known for message, reply in turns]
        for turns in _demonstrations(config, len(known)):
            lines.append({"turns": turns})
            collected += turns
        return collected
    finally:
        lines.close()


def _demonstrations(config: RunConfig, first: int) -> Iterator[list[tuple[str, str]]]:
    """The kept turns of each trajectory, from number `first` on; they follow from the seed and its number."""
    environment = find_environment(config.env.name)
    panel = load_panel(config.env.name, config.env.train_panel)
    env = environment.make(config.env)
    kept = {
        "search": config.coldstart.kept_searches,
        "lamp": config.coldstart.kept_searches,
        "hesitate": config.coldstart.kept_detours,
        "unfounded": 0.0,
    }
    for number in range(first, config.coldstart.num_trajectories):
        turns: list[tuple[str, str]] = []
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
        yield turns
