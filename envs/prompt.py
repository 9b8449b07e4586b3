"""What the policy reads: one user message a turn, built afresh from the task, the memory and the present.

Owns: how much of the past is shown, and how text of the past is kept short. Called by the rollout and by the cold
start, so that both train on the same prompts; the environments' wordings use its pieces. Must not know: tokenizers,
chat templates, environments beyond their interface.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from envs.environment import Environment, PromptStyle

LONGEST_ACTION = 200
"""Characters of a past action that are shown. No command is near it; a garbage reply must not fill the prompt."""


def turn_message(
    environment: Environment,
    style: PromptStyle,
    memory: int,
    past: Sequence[tuple[str, str]],
    observation: str,
    info: Mapping[str, Any],
) -> str:
    """The user message of the present turn, from what a `TextEnv` said: the one way to a message, for the rollout
    and for the cold start alike. `past` holds every (observation, action) pair so far, of which the last `memory`
    are shown; `info` is the environment's, with `admissible`, `goal` and what else its wording uses."""
    from envs.environment import View

    shown = past[len(past) - min(memory, len(past)) :]
    goal = str(info.get("goal", ""))
    view = View(goal=goal, observation=observation, history=shown, num_steps=len(past), info=info)
    return environment.render(style, view)


def one_line(text: str) -> str:
    return " ".join(text.split())


def shown_action(text: str, longest: int = LONGEST_ACTION) -> str:
    """A past action on one line, cut where it is longer than any command."""
    line = one_line(text)
    return line if len(line) <= longest else line[:longest] + "..."
