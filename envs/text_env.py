"""The gymnasium interface of a text game: a string in, a string out.

Owns: `TextEnv` and `make_env`. Called by the environment actors and evaluation. Must not know: models,
prompts, which environments exist beyond their names.
"""

from __future__ import annotations

from typing import Any

import gymnasium

from envs.settings import EnvSettings

Info = dict[str, Any]


class TextEnv(gymnasium.Env[str, str]):
    """An environment whose observations and actions are text.

    `reset(options={"task": Task})` chooses the start state. `info` always holds `admissible` (list of commands; empty
    where any text is one), `goal` (the task sentence) and `won`, and whatever else the environment's prompt shows.
    """

    # Bounds of text are not checked by anybody; gymnasium asks that the spaces exist.
    observation_space = gymnasium.spaces.Text(max_length=100_000)
    action_space = gymnasium.spaces.Text(max_length=100_000)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, Info]:
        raise NotImplementedError

    def step(self, action: str) -> tuple[str, float, bool, bool, Info]:
        raise NotImplementedError


def make_env(settings: EnvSettings) -> TextEnv:
    """The environment that the settings name."""
    from envs.environment import find_environment

    return find_environment(settings.name).make(settings)
