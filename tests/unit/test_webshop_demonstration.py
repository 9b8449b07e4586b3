"""The shopper of the cold start, what it and the compact prompt read off a page, and the expert."""

from __future__ import annotations

import random

import pytest

from envs.environment import View, find_environment
from envs.panel import load_panel
from envs.prompt import turn_message
from envs.records import Task
from envs.settings import EnvSettings
from envs.webshop.demonstration import Wish
from envs.webshop.pages import SEPARATOR
from envs.webshop.shown_page import BUTTONS, Offer, read_page

WEBSHOP = find_environment("webshop")
GOAL = (
    "Find me soft, warm scarves with deep pockets for cold days with color: dark blue, and size: xx large, and price "
    "lower than 40.00 dollars"
)


def _tasks(count: int) -> list[Task]:
    return random.Random(0).sample(load_panel("webshop", "train").tasks, count)


def _share_won(detour_rate: float, max_turns: int, count: int = 120) -> float:
    settings = EnvSettings(name="webshop", max_turns=max_turns)
    env, won = WEBSHOP.make(settings), 0
    for number, task in enumerate(_tasks(count)):
        observation, info = env.reset(options={"task": task})
        shopper = WEBSHOP.demonstrator(task, settings, random.Random(number), detour_rate)
        over = False
        while not over:
            turn = shopper.decide(observation, info)
            reply = WEBSHOP.parse(WEBSHOP.write(turn))
            assert reply.format_valid and reply.action == turn.action
            assert turn.action in info["admissible"] or turn.action.startswith("search[")
            observation, _, terminated, truncated, info = env.step(turn.action)
            over = terminated or truncated
        won += info["won"]
    return won / count


def test_without_detours_it_wins_most_goals_and_not_all() -> None:
    assert 0.5 < _share_won(0.0, 15) < 0.9


def test_detours_make_it_weak() -> None:
    assert _share_won(0.4, 10) < 0.6 * _share_won(0.0, 10)


def test_a_task_is_read_from_its_words() -> None:
    wish = Wish(GOAL)
    assert wish.query == GOAL.lower().removeprefix("find me ").removesuffix(", and price lower than 40.00 dollars")
    assert wish.options == [("color", "dark blue"), ("size", "xx large")] and wish.most == 40.0
    plain = Wish("I need a lamp")
    assert (plain.query, plain.options, plain.most) == ("a lamp", [], float("inf"))


def test_pages_are_read_back() -> None:
    head = ["Instruction:", GOAL, "Back to Search"]
    start = SEPARATOR.join(["WebShop", "Instruction:", GOAL, "Search"])
    assert read_page(start, GOAL, ["search[<your query>]"]).kind == "start"
    results = SEPARATOR.join(
        [*head, "Page 2 (Total results: 12)", "< Prev", "Next >", "B0A", "A lamp", "$5.0", "B0B", "B", "$1.0 to $2.5"]
    )
    can = ["click[back to search]", "click[< prev]", "click[next >]", "click[b0a]", "click[b0b]"]
    page = read_page(results, GOAL, can)
    assert page.kind == "results" and page.buttons == tuple(can[:3])
    assert page.offers == (Offer("B0A", "A lamp", "$5.0"), Offer("B0B", "B", "$1.0 to $2.5"))
    item = SEPARATOR.join(
        [
            *head,
            "< Prev",
            "color",
            "red",
            "dark blue",
            "size",
            "s",
            "A lamp",
            "Price: $5.0",
            "Rating: N.A.",
            "Description",
            "Features",
            "Reviews",
            "Buy Now",
        ]
    )
    buttons = [
        "click[back to search]",
        "click[< prev]",
        "click[description]",
        "click[features]",
        "click[reviews]",
        "click[buy now]",
    ]
    page = read_page(item, GOAL, [*buttons, "click[red]", "click[dark blue]", "click[s]"])
    assert page.kind == "item" and (page.title, page.price) == ("A lamp", "$5.0")
    assert page.options == {"color": ("red", "dark blue"), "size": ("s",)}
    details = read_page(SEPARATOR.join([*head, "< Prev", "Very good."]), GOAL, buttons[:2])
    assert details.kind == "details" and details.texts == ("Very good.",)


@pytest.mark.parametrize("text", ["", "[SEP]", " [SEP] ", "Thank you for shopping with us!", "Next >", "\x00" * 100])
def test_any_text_is_some_page(text: str) -> None:
    for can in ([], ["click[next >]"], ["click[buy now]"], sorted(BUTTONS)):
        view = View(goal=GOAL, observation=text, history=[(text, "x" * 5000)], info={"admissible": can})
        for style in ("compact", "full"):
            assert len(WEBSHOP.render(style, view)) < 5000  # type: ignore[arg-type]


def test_the_compact_prompt_has_all_that_can_be_clicked() -> None:
    settings = EnvSettings(name="webshop", max_turns=40)
    env = WEBSHOP.make(settings)
    rng = random.Random(1)
    for task in _tasks(10):
        observation, info = env.reset(options={"task": task})
        history: list[tuple[str, str]] = []
        for _ in range(12):
            message = turn_message(WEBSHOP, "compact", 2, history, observation, info)
            assert message.startswith("want: ") and message == message.lower()
            assert message.count("\ndid: ") == min(2, len(history))
            for action in info["admissible"]:
                assert action in message or action.startswith("search["), action
            action = rng.choice(info["admissible"])
            history.append((observation, "search[red lamp]" if action.startswith("search[") else action))
            observation, _, terminated, _, info = env.step(history[-1][1])
            if terminated:
                break


def test_the_published_prompt_drops_a_history_that_is_too_long() -> None:
    page = SEPARATOR.join(["Instruction:", GOAL, "Back to Search", "word " * 2000])
    can = ["click[back to search]"]
    view = View(goal=GOAL, observation="now", history=[(page, "a"), (page, "b")], num_steps=5, info={"admissible": can})
    assert "So far you have taken" not in WEBSHOP.render("full", view)
    short = View(goal=GOAL, observation="now", history=[("o", "a"), ("p", "b")], num_steps=5, info={"admissible": can})
    message = WEBSHOP.render("full", short)
    assert "[Observation 4: 'o', Action 4: 'a']\n[Observation 5: 'p', Action 5: 'b']" in message
    assert "This is step 6" in message and "'click[back to search]'," in message


def test_the_expert_wins() -> None:
    settings = EnvSettings(name="webshop", max_turns=15)
    env = WEBSHOP.make(settings)
    for task in _tasks(40):
        observation, info = env.reset(options={"task": task})
        expert = WEBSHOP.expert(task, settings)
        over = False
        while not over:
            observation, reward, terminated, truncated, info = env.step(expert.act(observation, info))
            over = terminated or truncated
        assert info["won"] and reward == settings.success_reward and info["task_score"] == 1.0
