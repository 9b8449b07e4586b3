"""A person plays a task in the terminal (`t2po play ENV`).

Owns: the loop of reading an action and showing the answer. Called by the CLI. Must not know: models, prompts.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from envs.environment import find_environment
from envs.panel import find_task, load_panel
from envs.records import Task
from envs.settings import EnvSettings

_ADVICE = "(type an action, its number, ? for the list of actions, or q to stop)"
_MAX_TURNS = 1000


def choose_task(env_name: str, panel_name: str, which: str, data_dir: Path | None = None) -> Task:
    """A task of the panel by its number (0, 1, ...) or its id. Raises DataError for a name that is not there."""
    panel = load_panel(env_name, panel_name, data_dir)
    if which.isdecimal() and int(which) < len(panel.tasks):
        return panel.tasks[int(which)]
    return find_task(panel, which)


def play(
    task: Task,
    read: Callable[[str], str] = input,
    show: Callable[[str], None] = print,
    data_dir: Path | None = None,
) -> bool:
    """Play until the task is over, `q`, or the end of the input; whether it was won."""
    environment = find_environment(task.env)
    env = environment.make(EnvSettings(name=task.env, max_turns=_MAX_TURNS), data_dir)
    observation, info = env.reset(options={"task": task})
    show(observation)
    show(_ADVICE)
    turns, over = 0, bool(info["won"])
    while not over:
        try:
            typed = read("> ").strip()
        except (EOFError, KeyboardInterrupt):
            show("")
            break
        can = list(info["admissible"])
        if typed.lower() in ("q", "quit", "exit"):
            break
        if typed == "?":
            listed = "\n".join(f"{number:3d} {action}" for number, action in enumerate(can, 1))
            show(listed or environment.typing_advice)
            continue
        if not typed:
            continue
        if typed.isdecimal() and 1 <= int(typed) <= len(can):
            typed = can[int(typed) - 1]
            show(typed)
        observation, _, terminated, truncated, info = env.step(environment.typed(typed))
        turns += 1
        over = terminated or truncated
        if observation:
            show(observation)
    how = "You reached the goal" if info["won"] else ("It is over" if over else "Stopped")
    show(f"{how} after {turns} turns.{environment.verdict(info)}")
    return bool(info["won"])
