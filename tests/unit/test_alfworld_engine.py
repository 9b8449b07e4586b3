"""The engine: TextWorld's recorded answers replayed byte for byte, and the quirks one by one."""

from __future__ import annotations

import json
import lzma
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.alfworld.engine import HELP, NOTHING_HAPPENS, Engine, Game, enumerate_names
from envs.alfworld.games import panel_games

TRANSCRIPTS = Path(__file__).parent / "data" / "textworld_transcripts.jsonl.xz"
WALKS = [json.loads(line) for line in lzma.decompress(TRANSCRIPTS.read_bytes()).splitlines()]

# Two receptacles at one spot (Shelf and Cabinet), a bowl that begins in both, an apple with a place nowhere near.
PROBLEM = """(define (problem p) (:domain alfred) (:objects agent1 - agent
  ShelfType CabinetType FridgeType SinkBasinType MicrowaveType DeskType - rtype
  BowlType AppleType KnifeType DeskLampType - otype
  Shelf_bar_1 Cabinet_bar_1 Fridge_bar_1 Sink_bar_1_bar_SinkBasin Microwave_bar_1 Desk_bar_1 Desk_bar_2 - receptacle
  Bowl_bar_1 Apple_bar_1 Knife_bar_1 DeskLamp_bar_1 - object
  loc_bar_1 loc_bar_2 loc_bar_3 loc_bar_4 loc_bar_5 loc_bar_6 loc_bar_9 - location)
 (:init (atLocation agent1 loc_bar_9)
  (receptacleType Shelf_bar_1 ShelfType) (receptacleAtLocation Shelf_bar_1 loc_bar_1)
  (receptacleType Cabinet_bar_1 CabinetType) (receptacleAtLocation Cabinet_bar_1 loc_bar_1) (openable Cabinet_bar_1)
  (receptacleType Fridge_bar_1 FridgeType) (receptacleAtLocation Fridge_bar_1 loc_bar_2) (openable Fridge_bar_1)
  (receptacleType Sink_bar_1_bar_SinkBasin SinkBasinType) (receptacleAtLocation Sink_bar_1_bar_SinkBasin loc_bar_3)
  (receptacleType Microwave_bar_1 MicrowaveType) (receptacleAtLocation Microwave_bar_1 loc_bar_4)
  (openable Microwave_bar_1)
  (receptacleType Desk_bar_1 DeskType) (receptacleAtLocation Desk_bar_1 loc_bar_5)
  (receptacleType Desk_bar_2 DeskType) (receptacleAtLocation Desk_bar_2 loc_bar_6)
  (canContain ShelfType BowlType) (canContain CabinetType BowlType) (canContain FridgeType AppleType)
  (canContain DeskType AppleType) (canContain DeskType KnifeType) (canContain MicrowaveType AppleType)
  (objectType Bowl_bar_1 BowlType) (pickupable Bowl_bar_1) (isReceptacleObject Bowl_bar_1)
  (inReceptacle Bowl_bar_1 Shelf_bar_1) (inReceptacle Bowl_bar_1 Cabinet_bar_1) (objectAtLocation Bowl_bar_1 loc_bar_1)
  (objectType Apple_bar_1 AppleType) (pickupable Apple_bar_1) (inReceptacle Apple_bar_1 Desk_bar_1)
  (objectAtLocation Apple_bar_1 loc_bar_5) (heatable Apple_bar_1) (coolable Apple_bar_1) (cleanable Apple_bar_1)
  (sliceable Apple_bar_1)
  (objectType Knife_bar_1 KnifeType) (pickupable Knife_bar_1) (inReceptacle Knife_bar_1 Desk_bar_1)
  (objectAtLocation Knife_bar_1 loc_bar_5)
  (objectType DeskLamp_bar_1 DeskLampType) (toggleable DeskLamp_bar_1) (inReceptacle DeskLamp_bar_1 Desk_bar_1)
  (objectAtLocation DeskLamp_bar_1 loc_bar_5))
 (:goal (and (exists (?r - receptacle) (exists (?o - object) (and (heatable ?o) (objectType ?o AppleType)
  (receptacleType ?r FridgeType) (isHot ?o) (inReceptacle ?o ?r)))))))"""


def engine_after(*commands: str) -> Engine:
    engine = Engine(Game(PROBLEM, "put a hot apple in fridge"))
    engine.reset()
    for command in commands:
        assert command in engine.admissible(), command
        engine.step(command)
    return engine


@pytest.mark.parametrize("walk", WALKS, ids=[walk["task"] for walk in WALKS])
def test_textworld_transcript(walk: dict[str, Any]) -> None:
    """Observation, admissible commands and done are the bytes that TextWorld 1.7.0 gave."""
    engine = Engine(Game(walk["problem"], walk["sentence"]))
    (_, first), *rest = walk["steps"]
    assert [engine.reset(), engine.admissible(), engine.won()] == first
    for command, expected in rest:
        observation, _, done = engine.step(command)
        assert [observation, engine.admissible(), done] == expected, command


def test_transcripts_cover_the_verbs_and_the_quirks() -> None:
    """So that the replay above cannot become empty of what matters."""
    answers = [(command, answer) for walk in WALKS for command, answer in walk["steps"]]
    played = {command.split(" ")[0] for command, answer in answers if answer[0] != NOTHING_HAPPENS}
    assert {"go", "open", "close", "take", "move", "examine", "look", "inventory", "help"} <= played
    assert {"clean", "heat", "cool", "use", "slice"} <= played
    texts = [answer[0] for _, answer in answers]
    for part in ("Next to it, you see a ", "This is a hot and clean", "This is a cold", "This is a normal", "sliced"):
        assert any(part in text for text in texts), part
    assert NOTHING_HAPPENS in texts and any(answer[2] for _, answer in answers)


def test_names_count_down_in_id_order_and_basins_are_named() -> None:
    game = Game(PROBLEM, "t")
    assert game.receptacles == ("cabinet 1", "desk 2", "desk 1", "fridge 1", "microwave 1", "shelf 1", "sinkbasin 1")


def test_lists() -> None:
    assert enumerate_names([]) == "nothing"
    assert enumerate_names(["x 1"]) == "a x 1"
    assert enumerate_names(["x 1", "y 2"]) == "a x 1, and a y 2"


def test_look_away_from_receptacles_sees_nothing_but_reset_sees_all() -> None:
    engine = engine_after()
    assert "you see a cabinet 1, a desk 2" in engine.reset()
    assert engine.step("look")[0].endswith("you see nothing.")


def test_two_receptacles_at_one_place_are_both_here() -> None:
    engine = engine_after("go to shelf 1")
    assert "go to cabinet 1" not in engine.admissible()
    assert engine.step("look")[0] == "You are facing the cabinet 1, and shelf 1. Next to it, you see nothing."


def test_object_in_two_receptacles_stays_in_the_other_when_taken() -> None:
    engine = engine_after("go to shelf 1", "take bowl 1 from shelf 1", "open cabinet 1")
    assert engine.step("examine cabinet 1")[0] == "The cabinet 1 is open. In it, you see a bowl 1."
    assert engine.step("move bowl 1 to cabinet 1")[0] == "You move the bowl 1 to the cabinet 1."
    assert engine.contents[0] == [engine.game.objects.index("bowl 1")]


def test_floor_shows_what_was_taken_from_a_receptacle_here_and_put_into_another() -> None:
    engine = engine_after("go to shelf 1", "take bowl 1 from shelf 1", "open cabinet 1", "move bowl 1 to cabinet 1")
    assert engine.step("look")[0].endswith("Next to it, you see a bowl 1.")
    engine.step("take bowl 1 from cabinet 1")
    assert engine.step("look")[0].endswith("Next to it, you see nothing.")


def test_closed_receptacle_hides_and_refuses() -> None:
    engine = engine_after("go to desk 2", "take apple 1 from desk 2", "go to fridge 1")
    assert not any(command.startswith("move") for command in engine.admissible())
    assert engine.step("examine fridge 1")[0] == "The fridge 1 is closed."
    assert "cool apple 1 with fridge 1" in engine.admissible()


def test_hot_and_cool_exclude_each_other_clean_stays() -> None:
    take = ("go to desk 2", "take apple 1 from desk 2")
    engine = engine_after(*take, "go to sinkbasin 1", "clean apple 1 with sinkbasin 1")
    assert engine.step("examine apple 1")[0] == "This is a clean apple 1."
    engine.step("go to microwave 1")
    assert engine.step("heat apple 1 with microwave 1")[0] == "You heat the apple 1 using the microwave 1."
    assert engine.step("examine apple 1")[0] == "This is a hot and clean apple 1."
    engine.step("go to fridge 1")
    engine.step("cool apple 1 with fridge 1")
    assert engine.step("examine apple 1")[0] == "This is a cool and clean apple 1."


def test_goal_needs_heat_and_place() -> None:
    engine = engine_after("go to desk 2", "take apple 1 from desk 2", "go to fridge 1", "open fridge 1")
    assert engine.step("move apple 1 to fridge 1")[2] is False
    engine.step("take apple 1 from fridge 1")
    engine.step("go to microwave 1")
    engine.step("heat apple 1 with microwave 1")
    engine.step("go to fridge 1")
    assert engine.step("move apple 1 to fridge 1") == ("You move the apple 1 to the fridge 1.", 1.0, True)
    assert engine.step("take apple 1 from fridge 1")[1:] == (0.0, False)  # TextWorld goes on after the end, too


def test_lamp_is_always_turned_on() -> None:
    engine = engine_after("go to desk 2")
    assert engine.step("use desklamp 1")[0] == "You turn on the desklamp 1."
    assert engine.step("use desklamp 1")[0] == "You turn on the desklamp 1."
    assert "take desklamp 1 from desk 2" not in engine.admissible()


def test_slice_needs_a_knife_in_hand_and_the_object_here() -> None:
    engine = engine_after("go to desk 2", "take knife 1 from desk 2")
    assert engine.step("slice apple 1 with knife 1")[0] == "You sliced the apple 1 with the knife 1."
    engine.step("move knife 1 to desk 2")
    engine.step("take apple 1 from desk 2")
    assert engine.step("examine apple 1")[0] == "This is a sliced apple 1."


def test_only_the_held_object_can_be_examined() -> None:
    engine = engine_after("go to desk 2")
    assert engine.step("examine apple 1")[0] == NOTHING_HAPPENS
    engine.step("take apple 1 from desk 2")
    assert engine.step("examine apple 1")[0] == "There's nothing special about apple 1."


def test_inventory_help_and_movable_receptacles() -> None:
    engine = engine_after("go to shelf 1")
    assert engine.step("inventory")[0] == "You are not carrying anything."
    engine.step("take bowl 1 from shelf 1")
    assert engine.step("inventory")[0] == "You are carrying: a bowl 1."
    assert engine.step("examine bowl 1")[0] == "This is a normal bowl 1. In it, you see nothing."
    assert engine.step("  help ")[0] == HELP
    assert not HELP.startswith("\n") and HELP.endswith("object\n")


GAMES = [stored.game() for stored in panel_games("unseen")[:12]]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(GAMES) - 1), st.lists(st.integers(0, 10_000), max_size=25))
def test_random_play_keeps_the_invariants(which: int, choices: list[int]) -> None:
    """Every admissible command does something, the list is sorted and unique, and reset forgets everything."""
    engine = Engine(GAMES[which])
    opening, first = engine.reset(), engine.admissible()
    for choice in choices:
        can = engine.admissible()
        assert can == sorted(set(can)) and {"help", "inventory", "look"} <= set(can)
        command = can[choice % len(can)]
        observation, reward, done = engine.step(command)
        assert observation != NOTHING_HAPPENS and reward == float(done) == float(engine.won())
        before = (engine.here, engine.held, [list(items) for items in engine.contents], set(engine.opened))
        assert engine.step("fly to the moon")[0] == NOTHING_HAPPENS
        assert before == (engine.here, engine.held, engine.contents, engine.opened)
        held = engine.held
        assert sum(held in items for items in engine.contents) == 0 or held < 0  # own games: one place for a thing
    assert (engine.reset(), engine.admissible()) == (opening, first)


def test_the_list_of_commands_belongs_to_the_caller() -> None:
    engine = engine_after()
    engine.admissible().clear()
    assert engine.admissible()


def test_speed() -> None:
    """Thousands of steps a second even here; TextWorld does 10 to 30."""
    engine = Engine(GAMES[0])
    started = time.process_time()
    for number in range(2000):
        can = engine.admissible()
        engine.step(can[number * 7 % len(can)])
    assert 2000 / (time.process_time() - started) > 2000
