"""Traces of a shop: play given actions and say what came of each, for comparison with the original.

Owns: what one step's record holds (`trace_episode`, of a panel's task as of an official goal), and reading the episodes
of `t2po env trace webshop --data PATH`. Called by the CLI and the environment. Must not know: panels, prompts, models.

An episode is one JSON line `{"task": place in the shuffled goal list, "actions": [...]}`. Actions after a purchase are
played too, as the original does: its last page has no buttons, but a search goes on with the same goal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from envs.data_folder import DataError
from envs.trace import read_episode
from envs.webshop.engine import Engine, ObservationMode
from envs.webshop.goals import OFFICIAL_SEED, Goal
from envs.webshop.official import prepared_catalogue

SUCCESS_REWARD = 10.0
_DECIMAL = re.compile("[0-9]{1,18}")


def trace_data(
    data: Path,
    episodes: Path,
    *,
    goal_seed: int = OFFICIAL_SEED,
    human_goals: bool = False,
    observation_mode: ObservationMode = "text",
    show_attrs: bool = False,
) -> Iterator[dict[str, Any]]:
    """`trace_webshop` of the lines of a file."""
    options: dict[str, Any] = {
        "human_goals": human_goals,
        "observation_mode": observation_mode,
        "show_attrs": show_attrs,
    }
    try:
        with episodes.open(encoding="utf-8") as stream:
            yield from trace_webshop(data, goal_seed, stream, str(episodes), **options)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{episodes}: {error}: name a file of JSON lines") from error


def trace_webshop(
    data: Path,
    goal_seed: int = OFFICIAL_SEED,
    lines: Iterable[str] = (),
    origin: str = "episodes",
    *,
    human_goals: bool = False,
    observation_mode: ObservationMode = "text",
    show_attrs: bool = False,
) -> Iterator[dict[str, Any]]:
    """One record a step for every episode, the reset first; blank lines are skipped. Raises DataError with the line.

    `data`: official files as `official.fetch_webshop` takes them, or the folder that it has stored. Fields: task, step,
    observation, admissible (what can be clicked, as the original lists it), reward (10 for a perfect purchase),
    task_score (the original's reward), done, and `breakdown` of the score at a purchase.
    """
    catalogue = prepared_catalogue(data)
    prices = catalogue.goal_table(human_goals, goal_seed).prices
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            (task, place), actions = read_episode(line, _read_place)
            goal = catalogue.goal(human_goals, goal_seed, place)
        except DataError as error:
            raise DataError(f"{origin}, line {number}: {error}") from error
        engine = Engine(catalogue, prices, observation_mode, show_attrs)
        for step, said in enumerate(trace_episode(engine, goal, actions)):
            yield {"task": task, "step": step, **said}


def trace_episode(engine: Engine, goal: Goal, actions: Iterable[str]) -> Iterator[dict[str, Any]]:
    """What the shop says at the reset and after each action: the fields of `trace_webshop` but task and step."""
    observation, score, done = engine.reset(goal), 0.0, False
    for action in (None, *actions):
        if action is not None:
            observation, score, done = engine.step(action)
        record = {
            "observation": observation,
            "admissible": engine.clickables(),
            "reward": SUCCESS_REWARD * (score == 1.0),
            "task_score": score,
            "done": done,
        }
        yield record | {"breakdown": engine.breakdown} if done else record


def _read_place(task: object) -> tuple[str | int, int]:
    """The task as it is written, and its number."""
    if isinstance(task, bool) or not isinstance(task, int | str) or not _DECIMAL.fullmatch(str(task)):
        raise DataError(f'"task" is {task!r}: write {{"task": place in the shuffled goal list, "actions": ["..."]}}')
    return task, int(task)
