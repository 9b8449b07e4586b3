"""ALFWorld's user message in its two wordings.

Owns: the published wording and the compact one for tiny models. Called by `envs.alfworld.environment`. Must not know:
tokenizers, chat templates, how many pairs are remembered.
"""

from __future__ import annotations

from collections.abc import Sequence

from envs.alfworld.engine import TASK_PREFIX, WELCOME
from envs.environment import PromptStyle, View
from envs.prompt import one_line, shown_action

_GO = "go to "


def render(style: PromptStyle, view: View) -> str:
    """The user message. The compact style lists where the agent stands (`info["place"]`) among the places, so that a
    small model sees what comes next."""
    return _compact(view) if style == "compact" else _full(view)


def _scene(observation: str) -> str:
    """The observation on one line, without the welcome and the task of the opening text."""
    text = observation.removeprefix(WELCOME)
    return one_line(text.split(f"\n\n{TASK_PREFIX}", 1)[0])


def _compact(view: View) -> str:
    lines = [f"task: {one_line(view.goal)}."]
    lines += [f"seen: {_scene(seen)} did: {shown_action(action)}" for seen, action in view.history]
    can = _with_place(view.admissible, str(view.info.get("place", "")))
    lines += [f"now: {_scene(view.observation)}", f"can: {' | '.join(can)}"]
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


def _full(view: View) -> str:
    listed = "\n ".join(f"'{command}'" for command in view.admissible)
    parts = ["You are a skilled agent that acts in the ALFRED Embodied Environment."]
    if view.history:
        first = view.num_steps - len(view.history) + 1
        remembered = "\n".join(
            f"[Observation {first + k}: '{one_line(seen)}', Action {first + k}: '{shown_action(action)}']"
            for k, (seen, action) in enumerate(view.history)
        )
        parts.append(f"Your task is to: {one_line(view.goal)}.")
        parts.append(
            f"So far you have taken {view.num_steps} step(s). The latest {len(view.history)} were:\n{remembered}"
        )
        parts.append(f"This is step {view.num_steps + 1}, and you now observe: {view.observation}")
    else:
        parts.append(f"You now observe: {view.observation}")
    parts.append(f"The actions that are possible now are: [{listed}].")
    parts.append(
        "It is your turn to act. First think step by step about the situation, inside <think> and </think>. "
        "When you have thought, choose one of the possible actions and write it inside <action> and </action>."
    )
    return "\n".join(parts)
