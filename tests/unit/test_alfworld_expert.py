"""The two experts: the planner wins every game, the search expert wins from observations, detours or not."""

from __future__ import annotations

import random

import pytest

from envs.alfworld.engine import Engine
from envs.alfworld.expert import SearchExpert, Wish, read_task
from envs.alfworld.floorplans import tables
from envs.alfworld.games import panel_games
from envs.alfworld.planner import plan
from envs.data_folder import DataError

GAMES = [stored.game() for stored in (*panel_games("unseen")[::2], *panel_games("seen")[::2])]


def test_all_twelve_wordings_are_understood() -> None:
    words = {"obj": "mug", "recep": "desk", "toggle": "desklamp"}
    wordings = tables().sentences.items()
    read = {task_type: [read_task(text.format(**words)) for text in texts] for task_type, texts in wordings}
    assert len(read) == 6
    assert set(read["pick_and_place_simple"]) == {Wish("mug", "desk")}
    assert set(read["pick_clean_then_place_in_recep"]) == {Wish("mug", "desk", "clean")}
    assert set(read["pick_heat_then_place_in_recep"]) == {Wish("mug", "desk", "heat")}
    assert set(read["pick_cool_then_place_in_recep"]) == {Wish("mug", "desk", "cool")}
    assert set(read["pick_two_obj_and_place"]) == {Wish("mug", "desk", count=2)}
    assert set(read["look_at_obj_in_light"]) == {Wish("mug", lamp="desklamp")}
    with pytest.raises(DataError, match="dance"):
        read_task("dance on the desk")


def test_planner_replans_from_anywhere() -> None:
    """After any detour (something else in hand, doors open) there is still a way, and following it wins."""
    rng = random.Random(0)
    for game in GAMES[::2]:
        engine = Engine(game)
        for _ in range(8):
            engine.step(rng.choice(engine.admissible()))
        commands = plan(engine)
        assert commands is not None
        assert engine.won() or any(engine.step(command)[2] for command in commands)


def test_planner_is_never_longer_than_the_search() -> None:
    for game in GAMES:
        engine = Engine(game)
        shortest = plan(engine)
        assert shortest is not None
        expert, turns = SearchExpert(engine.reset()), 0
        while not engine.won():
            observation, _, _ = engine.step(expert.decide(engine.admissible()).command)
            expert.see(observation)
            turns += 1
        assert len(shortest) <= turns <= 15


@pytest.mark.parametrize("noise", [0.15, 0.4])
def test_search_expert_recovers_from_detours(noise: float) -> None:
    rng = random.Random(1)
    for game in GAMES:
        engine = Engine(game)
        expert = SearchExpert(engine.reset())
        for _ in range(200):
            can = engine.admissible()
            decision = expert.decide(can)
            assert decision.command in can and decision.reason
            observation, _, done = engine.step(rng.choice(can) if rng.random() < noise else decision.command)
            expert.see(observation)
            if done:
                break
        assert engine.won(), game.task


def test_search_goes_in_listed_order_and_gives_its_reasons() -> None:
    game = next(game for game in GAMES if read_task(game.task).treatment == "heat")
    engine = Engine(game)
    expert = SearchExpert(engine.reset())
    tags, visited = [], []
    while not engine.won():
        decision = expert.decide(engine.admissible())
        tags.append(decision.reason[0])
        if decision.reason[0] == "search":
            visited.append(decision.command)
        expert.see(engine.step(decision.command)[0])
    assert visited == sorted(visited)
    assert tags.index("take") < tags.index("heat") < tags.index("place") == len(tags) - 1


def test_search_expert_needs_the_opening() -> None:
    with pytest.raises(DataError, match="opening text"):
        SearchExpert("You are in a room.")
