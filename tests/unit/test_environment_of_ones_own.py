"""An environment of the user's own: the example of docs/environments.md does what the page says."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.rollout import PlaySettings, TrajectorySpec, run_trajectory
from controller.cli import main
from controller.config import validate
from controller.demonstrations import collect_demonstrations
from envs.check import check_env
from envs.data_folder import DataError
from envs.environment import BUILT_IN, Environment, TaskRow, UnknownEnvironment, find_environment
from envs.panel import load_panel
from envs.play import choose_task, play
from envs.records import TurnReply
from envs.settings import EnvSettings
from learner.tiny_policy import train_tokenizer
from tests.fakes import make_candidate

PAGE = Path(__file__).resolve().parents[2] / "docs" / "environments.md"


@pytest.fixture(autouse=True)
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page's example as the module `guess`."""
    code = PAGE.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) <= 60
    (tmp_path / "guess.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    find_environment.cache_clear()
    yield
    sys.modules.pop("guess", None)
    find_environment.cache_clear()


def test_the_commands_of_the_page(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["env", "check", "guess:Guess"]) == 0
    assert "train: 51 tasks, the expert wins 51 (100.0%)" in capsys.readouterr().out
    assert main(["panel", "show", "guess:Guess"]) == 0
    assert "test: 12 tasks (even 6, odd 6); hash " in capsys.readouterr().out
    assert main(["panel", "verify", "guess:Guess"]) == 0
    episodes = tmp_path / "episodes.jsonl"
    episodes.write_text('{"task": "5", "actions": ["9", "5", "6"]}\n')
    assert main(["env", "trace", "guess:Guess", "--panel", "test", "--episodes", str(episodes)]) == 0
    assert "9 is too high." in capsys.readouterr().out


def test_a_person_plays_it() -> None:
    shown: list[str] = []
    typed = iter(["?", "40", "60"])
    task = choose_task("guess:Guess", "test", "60")
    assert play(task, lambda prompt: next(typed), shown.append)
    assert shown[-1] == "You reached the goal after 2 turns."


def test_it_is_rolled_out_and_demonstrated() -> None:
    config = validate({"env": {"name": "guess:Guess", "eval_panel": "test"}, "coldstart": {"num_trajectories": 3}}, "x")
    demonstrations = collect_demonstrations(config)
    assert demonstrations[0][1] == "<think>1 to 63: 32.</think>\n<action>32</action>"
    task = load_panel("guess:Guess", "train").tasks[0]
    assert task.env == "guess:Guess"
    environment = find_environment(task.env)
    settings = PlaySettings(env=config.env, prompt_tokens=4096, env_step_timeout_s=10.0)
    tokenizer = train_tokenizer(["a"], ["b"], environment.vocabulary(), environment.markers)
    spec = TrajectorySpec(
        run_id="r", group_id="r/0", group_index=0, task=task, sibling=0, attempt=0, sampling="train"
    )  # fmt: skip
    replies = iter(["<think>a</think><action>2</action>", "<action>1</action>", "<action>1</action>"])

    async def reply(request: object) -> TurnReply:
        return TurnReply(accepted=make_candidate(next(replies)), rejected=())

    trajectory = asyncio.run(run_trajectory(environment.make(config.env), spec, tokenizer, settings, reply))
    assert trajectory.won and [turn.valid for turn in trajectory.turns] == [True, False]
    assert trajectory.total_reward == config.env.success_reward


class _Leaky(Environment):
    """The same content in both panels, under two ids."""

    panels = ("train", "test")
    apart = (("train", "test"),)

    def panel_rows(self, panel: str, data_dir: Path | None = None) -> list[TaskRow]:
        return [TaskRow(f"{panel}-1", "k", "same"), TaskRow(f"{panel}-2", "k", panel)]

    def make(self, settings: EnvSettings, data_dir: Path | None = None):  # type: ignore[no-untyped-def]
        raise NotImplementedError

    render = expert = make  # type: ignore[assignment]


def test_a_leak_is_found_whoever_loads_a_panel(capsys: pytest.CaptureFixture[str]) -> None:
    name = f"{__name__}:_Leaky"
    for panel in ("train", "test"):
        with pytest.raises(DataError, match="has the content of task t.*-1 of panel"):
            load_panel(name, panel)
    with pytest.raises(DataError, match="has the content of"):
        check_env(name)
    assert main(["panel", "verify", name]) == 2
    assert "has the content of" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("chess", "environment 'chess' is unknown: use alfworld, search, webshop, or module:Class"),
        ("nowhere:Chess", "cannot be loaded .*nowhere"),
        ("guess:Chess", "cannot be loaded .*Chess"),
        ("guess:GuessEnv", "cannot be loaded|is a GuessEnv"),
        ("guess:Halving", "is a Halving, not an Environment"),
    ],
)
def test_a_name_that_leads_nowhere(name: str, message: str) -> None:
    with pytest.raises(UnknownEnvironment, match=message):
        find_environment(name)


def test_the_built_in_ones_are_what_the_page_names() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in BUILT_IN)


def test_a_hash_that_is_not_the_panels(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["panel", "verify", "alfworld", "seen", "--hash", "0" * 32]) == 2
    assert f"expected {'0' * 32}: the tasks are others" in capsys.readouterr().out
    assert main(["panel", "verify", "alfworld", "seen"]) == 0
    assert "as published" in capsys.readouterr().out
    assert main(["panel", "verify", "alfworld", "--hash", "00"]) == 2
    assert main(["panel", "show", "alfworld", "nope"]) == 2


def test_a_recipe_with_a_panel_that_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"env.eval_panel = 'dev': alfworld has no such panel; use one of train, seen"):
        validate({"env": {"eval_panel": "dev"}}, "x")


def test_tries_at_a_search_must_fit_into_a_step() -> None:
    tree = {"env": {"name": "search", "search": {"tries": 10, "timeout_s": 5.0}}}
    with pytest.raises(ValueError, match="env.search.tries = 10 .* must be below rollout.env_step_timeout_s = 30"):
        validate(tree, "x")
