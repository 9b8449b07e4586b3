"""The demonstrator: solves the suite without detours, is weak with them, and says only what it may know."""

from __future__ import annotations

import random

import pytest

from controller.config import validate
from controller.demonstrations import collect_demonstrations
from envs.alfworld.demonstration import Demonstrator, type_names
from envs.alfworld.expert import read_task
from envs.panel import load_panel
from envs.reply import parse_reply
from envs.settings import EnvSettings
from envs.text_env import make_env


def _win_rate(detour_rate: float, max_turns: int, num_tasks: int = 300) -> float:
    env = make_env(EnvSettings(max_turns=max_turns))
    wins = 0
    for number, task in enumerate(load_panel("alfworld", "train").tasks[:num_tasks]):
        _, info = env.reset(options={"task": task})
        demonstrator = Demonstrator(read_task(info["goal"]), random.Random(number), detour_rate)
        over = False
        while not over:
            command, thought = demonstrator.decide(info["admissible"])
            assert command in info["admissible"] and thought
            _, _, terminated, truncated, info = env.step(command)
            over = terminated or truncated
        wins += info["won"]
    return wins / num_tasks


def test_without_detours_it_solves_nearly_every_game() -> None:
    assert _win_rate(0.0, max_turns=30) >= 0.98


def test_detours_make_it_weak() -> None:
    assert _win_rate(0.5, max_turns=15) < _win_rate(0.2, max_turns=15) < _win_rate(0.0, max_turns=15)


def test_demonstrations_are_valid_replies_and_repeat() -> None:
    config = validate({"coldstart": {"num_trajectories": 40}}, "test")
    turns = collect_demonstrations(config)
    assert turns == collect_demonstrations(config)
    for message, reply in turns:
        parsed = parse_reply(reply)
        assert parsed.format_valid and parsed.action in message


def test_kept_shares_thin_out_searches() -> None:
    def searches(kept: float) -> float:
        config = validate({"coldstart": {"num_trajectories": 60, "kept_searches": kept, "kept_detours": 1.0}}, "test")
        turns = collect_demonstrations(config)
        return sum("not here. next: " in reply for _, reply in turns) / len(turns)

    assert searches(0.2) < 0.6 * searches(1.0)


@pytest.mark.parametrize("name", ["apple", "cabinet", "desklamp", "sinkbasin"])
def test_type_names_cover_what_goals_name(name: str) -> None:
    assert name in type_names()
