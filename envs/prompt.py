"""What the policy reads: one user message a turn, built afresh from the task, the memory and the present.

Owns: the two wordings. Called by the rollout and by the cold start, so that both train on the same prompts.
Must not know: tokenizers, chat templates, environments beyond their text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from envs.alfworld.engine import TASK_PREFIX, WELCOME

PromptStyle = Literal["full", "compact"]
_GO = "go to "
LONGEST_ACTION = 200
"""Characters of a past action that are shown. No command is near it; a garbage reply must not fill the prompt."""


def render_message(
    style: PromptStyle,
    goal: str,
    history: Sequence[tuple[str, str]],
    observation: str,
    admissible: Sequence[str],
    num_steps: int | None = None,
    place: str = "",
) -> str:
    """The user message. `history` holds the remembered (observation, action) pairs, oldest first; `num_steps` is
    the number of turns taken so far, when the caller knows it (the full style mentions it); `place` is where the
    agent stands (the compact style lists it among the places, so that a small model sees what comes next)."""
    if style == "compact":
        return _compact(goal, history, observation, admissible, place)
    if style == "full":
        return _full(goal, history, observation, admissible, num_steps)
    raise ValueError(f"env.prompt {style!r} is unknown: use full or compact")


def turn_message(
    style: PromptStyle,
    memory: int,
    past: Sequence[tuple[str, str]],
    observation: str,
    info: Mapping[str, Any],
) -> str:
    """The user message of the present turn, from what a `TextEnv` said: the one way to a message, for the rollout
    and for the cold start alike. `past` holds every (observation, action) pair so far, of which the last `memory`
    are shown; `info` is the environment's, with `admissible`, `goal` and perhaps `place`."""
    shown = past[len(past) - min(memory, len(past)) :]
    goal, place = str(info.get("goal", "")), str(info.get("place", ""))
    return render_message(style, goal, shown, observation, info.get("admissible", ()), len(past), place)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _action(text: str) -> str:
    line = _one_line(text)
    return line if len(line) <= LONGEST_ACTION else line[:LONGEST_ACTION] + "..."


def _scene(observation: str) -> str:
    """The observation on one line, without the welcome and the task of the opening text."""
    text = observation.removeprefix(WELCOME)
    return _one_line(text.split(f"\n\n{TASK_PREFIX}", 1)[0])


def _compact(
    goal: str, history: Sequence[tuple[str, str]], observation: str, admissible: Sequence[str], place: str
) -> str:
    lines = [f"task: {_one_line(goal)}."]
    lines += [f"seen: {_scene(seen)} did: {_action(action)}" for seen, action in history]
    lines += [f"now: {_scene(observation)}", f"can: {' | '.join(_with_place(admissible, place))}"]
    return "\n".join(lines)


def _with_place(admissible: Sequence[str], place: str) -> list[str]:
    """The commands, places first, with `at PLACE` where `go to PLACE` would stand if the agent were elsewhere."""
    going = [command for command in admissible if command.startswith(_GO)]
    others = [command for command in admissible if not command.startswith(_GO)]
    if place and _GO + place not in going:
        going.append(_GO + place)
        going.sort()
        going[going.index(_GO + place)] = f"at {place}"
    return going + others


def _full(
    goal: str, history: Sequence[tuple[str, str]], observation: str, admissible: Sequence[str], num_steps: int | None
) -> str:
    listed = "\n ".join(f"'{command}'" for command in admissible)
    parts = ["You are a skilled agent that acts in the ALFRED Embodied Environment."]
    if history:
        taken = len(history) if num_steps is None else num_steps
        first = taken - len(history) + 1
        remembered = "\n".join(
            f"[Observation {first + k}: '{_one_line(seen)}', Action {first + k}: '{_action(action)}']"
            for k, (seen, action) in enumerate(history)
        )
        parts.append(f"Your task is to: {_one_line(goal)}.")
        parts.append(f"So far you have taken {taken} step(s). The latest {len(history)} were:\n{remembered}")
        parts.append(f"This is step {taken + 1}, and you now observe: {observation}")
    else:
        parts.append(f"You now observe: {observation}")
    parts.append(f"The actions that are possible now are: [{listed}].")
    parts.append(
        "It is your turn to act. First think step by step about the situation, inside <think> and </think>. "
        "When you have thought, choose one of the possible actions and write it inside <action> and </action>."
    )
    return "\n".join(parts)
