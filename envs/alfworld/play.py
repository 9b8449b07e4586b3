"""A person plays a game in the terminal (`t2po play alfworld`).

Owns: the loop of reading a command and showing the answer. Called by the CLI. Must not know: models, prompts.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from envs.alfworld.engine import Engine
from envs.alfworld.games import stored_game
from envs.panel import find_task, load_panel
from envs.records import Task

_ADVICE = "(type a command, its number, ? for the list of commands, or q to stop)"


def choose_task(panel_name: str, which: str, data_dir: Path | None = None) -> Task:
    """A task of the panel by its number (0, 1, ...) or its id. Raises DataError for a name that is not there."""
    panel = load_panel("alfworld", panel_name, data_dir)
    if which.isdecimal() and int(which) < len(panel.tasks):
        return panel.tasks[int(which)]
    return find_task(panel, which)


def play(
    task: Task,
    read: Callable[[str], str] = input,
    show: Callable[[str], None] = print,
    data_dir: Path | None = None,
) -> bool:
    """Play until the goal is reached, `q`, or the end of the input; whether the game was won."""
    engine = Engine(stored_game(task.panel, task.index, task.id, data_dir).game())
    show(engine.reset())
    show(_ADVICE)
    turns = 0
    while not engine.won():
        try:
            typed = read("> ").strip().lower()
        except (EOFError, KeyboardInterrupt):
            show("")
            break
        can = engine.admissible()
        if typed in ("q", "quit", "exit"):
            break
        if typed == "?":
            show("\n".join(f"{number:3d} {command}" for number, command in enumerate(can, 1)))
            continue
        if not typed:
            continue
        if typed.isdecimal() and 1 <= int(typed) <= len(can):
            typed = can[int(typed) - 1]
            show(typed)
        observation, _, _ = engine.step(typed)
        turns += 1
        show(observation)
    show(f"You reached the goal in {turns} turns." if engine.won() else f"Stopped after {turns} turns.")
    return engine.won()
