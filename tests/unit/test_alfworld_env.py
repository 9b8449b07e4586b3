"""ALFWorld behind gymnasium: rewards, the cut, info, the benchmark's promise, the terminal, the check."""

from __future__ import annotations

import pytest

from envs.alfworld.engine import Engine
from envs.alfworld.games import panel_games, stored_game
from envs.alfworld.planner import plan
from envs.check import check_env
from envs.data_folder import DataError
from envs.panel import load_panel
from envs.play import choose_task, play
from envs.records import Task
from envs.settings import EnvSettings
from envs.text_env import make_env

PANEL = load_panel("alfworld", "seen")


def winning_commands(task: Task) -> list[str]:
    commands = plan(Engine(stored_game(task.panel, task.index, task.id).game()))
    assert commands
    return commands


def test_a_won_game() -> None:
    env = make_env(EnvSettings(success_reward=7.0))
    task = PANEL.tasks[4]
    observation, info = env.reset(options={"task": task})
    assert observation.endswith(f"Your task is to: {info['goal']}.") and info["won"] is False
    assert "help" not in info["admissible"] and info["admissible"] == sorted(info["admissible"])
    *before, last = winning_commands(task)
    for command in before:
        assert command in info["admissible"]
        _, reward, terminated, truncated, info = env.step(command)
        assert (reward, terminated, truncated, info["won"]) == (0.0, False, False, False)
    _, reward, terminated, truncated, info = env.step(last)
    assert (reward, terminated, truncated, info["won"]) == (7.0, True, False, True)


def test_the_cut_after_max_turns_is_no_end_of_the_game() -> None:
    env = make_env(EnvSettings(max_turns=3))
    env.reset(options={"task": PANEL.tasks[0]})
    ends = [env.step("garbage " * 2000)[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]


def test_a_win_on_the_last_turn_is_a_win() -> None:
    task = PANEL.tasks[1]
    commands = winning_commands(task)
    env = make_env(EnvSettings(max_turns=len(commands)))
    env.reset(options={"task": task})
    assert [env.step(command)[2:4] for command in commands][-1] == (True, False)


def test_reset_gives_the_same_start_on_every_environment() -> None:
    starts = [make_env(EnvSettings()).reset(seed=seed, options={"task": PANEL.tasks[9]}) for seed in (0, 1)]
    assert starts[0] == starts[1]


def test_bad_use() -> None:
    env = make_env(EnvSettings())
    with pytest.raises(RuntimeError, match="reset"):
        env.step("look")
    with pytest.raises(ValueError, match="task"):
        env.reset()
    stranger = Task(env="alfworld", panel="seen", index=0, id="other", kind="")
    with pytest.raises(DataError, match="comes from other data"):
        env.reset(options={"task": stranger})


def test_playing_in_the_terminal() -> None:
    task = choose_task("alfworld", "seen", "4")
    assert choose_task("alfworld", "seen", task.id) == task
    typed = iter(["?", "", "Look", "1", *winning_commands(task)])
    shown: list[str] = []
    assert play(task, lambda prompt: next(typed), shown.append)
    assert shown[-1].startswith("You reached the goal after")


def test_the_end_of_the_input_ends_the_game() -> None:
    def nobody(prompt: str) -> str:
        raise EOFError

    shown: list[str] = []
    assert not play(PANEL.tasks[0], nobody, shown.append)
    assert shown[-1] == "Stopped after 0 turns."


def test_check_of_the_embedded_panels() -> None:
    report = check_env("alfworld", ("seen", "unseen"))
    assert report.ok and len(report.lines()) == 3
    assert all(panel.num_won == panel.num_tasks for panel in report.panels)
    assert [panel.num_tasks for panel in report.panels] == [140, 256]


def test_games_are_shared_and_small() -> None:
    """128 environments have to fit into a few hundred megabytes: the text of a game is kept deflated."""
    games = panel_games("train")
    assert sum(len(stored.packed) for stored in games) < 6_000_000
