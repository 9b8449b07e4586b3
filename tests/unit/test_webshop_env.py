"""The gymnasium environment: reward, the cut, what info says, and tasks of other data."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from envs.data_folder import DataError
from envs.environment import find_environment
from envs.panel import check_disjoint, load_panel
from envs.records import Task
from envs.settings import EnvSettings, WebshopSettings
from envs.webshop.env import WebshopEnv
from envs.webshop.official import fetch_webshop
from envs.webshop.tasks import goal_of
from tests.unit.webshop_records import ODD_RECORDS, tag_words

TRAIN = load_panel("webshop", "train")


def win(env: WebshopEnv, task: Task) -> tuple[str, float, bool, bool, dict[str, object]]:
    """Buys what the task asks for."""
    goal, product = goal_of(task)
    env.reset(options={"task": task})
    info = env.step(f"search[{product.title}]")[4]
    while f"click[{product.asin.lower()}]" not in info["admissible"]:
        info = env.step("click[next >]")[4]
    env.step(f"click[{product.asin}]")
    for option in goal.options:
        env.step(f"click[{option if isinstance(option, str) else option[1]}]")
    return env.step("click[buy now]")


def test_embedded_panels_are_apart_and_named_by_product() -> None:
    panels = [load_panel("webshop", name) for name in ("train", "seen", "unseen")]
    check_disjoint(*panels)
    assert {task.id.rsplit("-", 1)[0] for task in panels[0].tasks}.isdisjoint(
        task.id.rsplit("-", 1)[0] for task in panels[2].tasks
    )
    task = TRAIN.tasks[0]
    goal, product = goal_of(task)
    assert task.id.startswith(f"{goal.asin}-") and task.kind == goal.category and product.asin == goal.asin


def test_the_start_of_a_task() -> None:
    env = WebshopEnv()
    observation, info = env.reset(options={"task": TRAIN.tasks[0]})
    assert info == {
        "admissible": ["search[<your query>]"],
        "goal": goal_of(TRAIN.tasks[0])[0].text,
        "won": False,
        "task_score": 0.0,
    }
    assert observation == f"WebShop [SEP] Instruction: [SEP] {info['goal']} [SEP] Search"


def test_a_perfect_purchase_is_rewarded() -> None:
    env = WebshopEnv(max_turns=30, success_reward=7.0)
    observation, reward, terminated, truncated, info = win(env, TRAIN.tasks[0])
    assert (reward, terminated, truncated, info["won"], info["task_score"]) == (7.0, True, False, True, 1.0)
    assert info["admissible"] == [] and info["breakdown"]["r_att"] == 1.0  # type: ignore[index]
    assert observation.startswith("Thank you")


def test_any_other_purchase_is_not() -> None:
    env = WebshopEnv()
    env.reset(options={"task": TRAIN.tasks[0]})
    info = env.step("search[gift]")[4]
    env.step(info["admissible"][-1])
    _, reward, terminated, _, info = env.step("click[buy now]")
    assert (reward, terminated, info["won"]) == (0.0, True, False) and 0 <= info["task_score"] < 1
    assert isinstance(reward, float) and "breakdown" in info


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_purchase_earns_a_share_by_its_score(share: float) -> None:
    settings = EnvSettings(name="webshop", success_reward=4.0, webshop=WebshopSettings(score_share=share))
    env = find_environment("webshop").make(settings)
    env.reset(options={"task": TRAIN.tasks[0]})
    env.step("search[gift]")
    info = env.step(f"search[{goal_of(TRAIN.tasks[0])[1].title}]")[4]
    env.step(info["admissible"][-1])
    _, reward, terminated, _, info = env.step("click[buy now]")
    assert terminated and not info["won"] and 0 < info["task_score"] < 1
    assert reward == pytest.approx(4.0 * share * info["task_score"])
    assert win(env, TRAIN.tasks[1])[1] == 4.0


@pytest.mark.parametrize("size", [1, 4, 10])
def test_a_page_of_results_holds_as_many_products_as_asked_for(size: int) -> None:
    settings = EnvSettings(name="webshop", webshop=WebshopSettings(results_per_page=size))
    env = find_environment("webshop").make(settings)
    env.reset(options={"task": TRAIN.tasks[0]})
    pages = [env.step("search[gift]")[4]["admissible"], env.step("click[next >]")[4]["admissible"]]
    products = [[action for action in page if action.startswith("click[b0")] for page in pages]
    assert [len(shown) for shown in products] == [size, size] and not set(products[0]) & set(products[1])


def test_actions_are_listed_as_they_are_sent() -> None:
    env = WebshopEnv()
    env.reset(options={"task": TRAIN.tasks[0]})
    info = env.step("search[gift]")[4]
    assert info["admissible"][:2] == ["click[back to search]", "click[next >]"] and len(info["admissible"]) == 12
    assert "breakdown" not in info and info["task_score"] == 0.0


def test_the_cut() -> None:
    env = WebshopEnv(max_turns=2)
    env.reset(options={"task": TRAIN.tasks[0]})
    assert env.step("nonsense")[1:4] == (0.0, False, False)
    assert env.step("")[1:4] == (0.0, False, True)
    env.reset(options={"task": TRAIN.tasks[0]})
    assert env.step("nonsense")[3] is False


def test_a_purchase_on_the_last_turn_is_no_cut() -> None:
    env = WebshopEnv(max_turns=3)
    env.reset(options={"task": TRAIN.tasks[0]})
    env.step(env.step("search[gift]")[4]["admissible"][-1])
    assert env.step("click[buy now]")[2:4] == (True, False)


def test_modes_and_attributes() -> None:
    env = WebshopEnv(observation_mode="text_rich", show_attrs=True)
    assert "[button] Search [button_]" in env.reset(options={"task": TRAIN.tasks[0]})[0]
    info = env.step(env.step("search[gift]")[4]["admissible"][-1])[4]
    assert "click[attributes]" in info["admissible"]


def test_wrong_use_is_named() -> None:
    with pytest.raises(RuntimeError, match="reset"):
        WebshopEnv().step("search[lamp]")
    with pytest.raises(ValueError, match="webshop task"):
        WebshopEnv().reset()
    with pytest.raises(ValueError, match="webshop task"):
        WebshopEnv().reset(options={"task": dataclasses.replace(TRAIN.tasks[0], env="alfworld")})


def test_tasks_of_other_data_are_named() -> None:
    task = TRAIN.tasks[0]
    for wrong in (dataclasses.replace(task, id="B0OTHER-0"), dataclasses.replace(task, index=10**6)):
        with pytest.raises(DataError, match="load the panel again"):
            WebshopEnv().reset(options={"task": wrong})


def test_official_tasks(tmp_path: Path) -> None:
    fetch_webshop(ODD_RECORDS, tmp_path, make_tagger=lambda: tag_words)
    for name, count in (("official-test", 41), ("official-human-test", 3)):
        panel = load_panel("webshop", name, tmp_path)
        assert len(panel.tasks) == count
        env = WebshopEnv(data_dir=tmp_path)
        for task in panel.tasks:
            goal, product = goal_of(task, data_dir=tmp_path)
            assert env.reset(options={"task": task})[1]["goal"] == goal.text and product.asin == goal.asin
    with pytest.raises(DataError, match="empty"):
        load_panel("webshop", "official-train", tmp_path)


def test_another_goal_seed_gives_other_goals(tmp_path: Path) -> None:
    fetch_webshop(ODD_RECORDS, tmp_path, make_tagger=lambda: tag_words)
    (task, *_) = load_panel("webshop", "official-test", tmp_path).tasks
    goals = [
        WebshopEnv(data_dir=tmp_path, goal_seed=seed).reset(options={"task": task})[1]["goal"] for seed in range(5)
    ]
    assert len(set(goals)) > 1
