"""The searcher of the cold start: it answers, it hesitates when told to, and says only what it has read."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.environment import find_environment
from envs.panel import load_panel
from envs.prompt import turn_message
from envs.search.demonstration import in_words_of, quote
from envs.settings import EnvSettings

SEARCH = find_environment("search")


def _play(detour_rate: float, topk: int, count: int = 150) -> tuple[float, Counter[str]]:
    settings = EnvSettings.model_validate({"name": "search", "max_turns": 4, "search": {"topk": topk}})
    env, won, plans = SEARCH.make(settings), 0, Counter[str]()
    for number, task in enumerate(random.Random(0).sample(load_panel("search", "train").tasks, count)):
        observation, info = env.reset(options={"task": task})
        agent = SEARCH.demonstrator(task, settings, random.Random(number), detour_rate)
        over = False
        while not over:
            message = turn_message(SEARCH, "compact", 4, [], observation, info)
            turn = agent.decide(observation, info)
            reply = SEARCH.parse(SEARCH.write(turn))
            assert reply.format_valid and reply.action == turn.action and SEARCH.allows(reply.action, info)
            plans[turn.plan] += 1
            if turn.thought.startswith("it says: ") and turn.plan != "unfounded":
                assert turn.thought.split(": ", 1)[1].split(".")[0].split()[-1] in message + observation
            observation, _, terminated, truncated, info = env.step(turn.action)
            over = terminated or truncated
        won += info["won"]
    return won / count, plans


def test_without_detours_it_answers_nearly_all() -> None:
    won, plans = _play(0.0, topk=3)
    assert won > 0.95 and plans["unfounded"] < 0.05 * plans.total()


def test_detours_make_it_weak() -> None:
    assert _play(0.5, topk=3)[0] < 0.6 * _play(0.0, topk=3)[0]


def test_what_a_search_did_not_bring_is_not_taught() -> None:
    """One passage a search is not always the right one: the turns after it are marked."""
    _, plans = _play(0.0, topk=1)
    assert plans["unfounded"] > 0


@pytest.mark.parametrize(
    ("question", "query", "entity", "said"),
    [
        ("What is the highest point of Sweden?", "Sweden highest point", "", "highest point of Sweden"),
        ("What is the area of the country whose capital is Yaounde?", "capital Yaounde", "", "capital is Yaounde"),
        ("What is the currency of Fiji?", "Fiji currency exchange rates", "", "currency of Fiji exchange rates"),
        ("What is the area of the country whose capital is Bamako?", "Mali area", "Mali", "area of Mali"),
        ("Which is larger, Peru or Chad?", "Chad total area", "Peru 1", "Chad total area"),
        ("Which has the larger total area, Holy See or Peru?", "Peru total area", "", "Peru total area"),
        ("", "Mali area", "", "Mali area"),
    ],
)
def test_queries_are_put_in_the_questions_words(question: str, query: str, entity: str, said: str) -> None:
    assert in_words_of(question, query, entity) == said


@given(st.text(max_size=60), st.text(max_size=30), st.text(max_size=10))
def test_any_words_can_be_put(question: str, query: str, entity: str) -> None:
    assert isinstance(in_words_of(question, query, entity), str)


def test_a_quote_ends_with_what_was_found() -> None:
    assert quote("a b c d e", "d") == "a b c d" and quote("a b", "x") == "" == quote("a b", "")


def test_a_question_without_a_plan_is_refused_with_a_remedy() -> None:
    from unittest.mock import patch

    from envs.data_folder import DataError
    from envs.search.question import Question

    task = load_panel("search", "seen").tasks[0]
    bare = Question("q", "who?", ("me",), "nq")
    with patch("envs.search.environment.question_of", return_value=bare), pytest.raises(DataError, match="set `model`"):
        SEARCH.demonstrator(task, EnvSettings(name="search"), random.Random(0), 0.0)
