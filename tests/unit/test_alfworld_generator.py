"""Generated games: solvable, not won at the start, within the sizes asked for, the same for the same seed."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from envs.alfworld.engine import Engine, Game
from envs.alfworld.floorplans import ROOM_KINDS, TASK_TYPES, floor_plan, room_kind, train_scenes, unseen_scenes
from envs.alfworld.generator import NoSuchGame, generate_game, mangle, possible_task_types
from envs.alfworld.planner import plan
from envs.alfworld.suite import search_turns

SCENES = [scene for kind in ROOM_KINDS for scene in (*train_scenes(kind), *unseen_scenes(kind))]


def test_floor_plans_cover_all_rooms_and_splits_are_disjoint() -> None:
    assert len(SCENES) == len(set(SCENES)) == 120
    for scene in SCENES:
        room = floor_plan(scene)
        assert room.places and room.object_types and room.start not in {place.location for place in room.places}
    assert [room_kind(scene) for scene in (1, 230, 301, 430)] == ["kitchen", "living room", "bedroom", "bathroom"]
    with pytest.raises(ValueError, match="scene 31"):
        room_kind(31)


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_every_task_type_in_many_rooms(task_type: str) -> None:
    rng = random.Random(task_type)
    made = Counter[str]()
    for scene in [scene for scene in SCENES if task_type in possible_task_types(scene)][::3]:
        try:
            data = generate_game(scene, task_type, rng, max_receptacles=6, distractors=3)
        except NoSuchGame:
            continue
        game = Game(data["problem"], data["task"])
        engine = Engine(game)
        commands = plan(engine)
        assert not engine.won() and commands
        assert [engine.step(command)[2] for command in commands] == [False] * (len(commands) - 1) + [True]
        assert search_turns(game, 100) is not None
        assert 2 <= len(game.receptacles) <= 6
        assert len(set(game.location_of)) == len(game.location_of)
        own = {"pick_two_obj_and_place": 2, "look_at_obj_in_light": 2}.get(task_type, 1)
        assert own <= len(game.objects) <= own + 3
        made[room_kind(scene)] += 1
    assert sum(made.values()) >= 8


def test_same_seed_same_game_and_the_shape_of_an_official_line() -> None:
    first, second = (generate_game(7, TASK_TYPES[4], random.Random(3), max_receptacles=5, distractors=2) for _ in "ab")
    assert first == second
    assert set(first) == {"id", "task", "task_type", "pddl_params", "scene", "problem"}
    assert first["id"].startswith(f"pick_cool_then_place_in_recep-{first['pddl_params']['object_target']}-None-")


def test_without_sparse_receptacles_may_share_a_location() -> None:
    rng = random.Random(0)
    games = [
        generate_game(9, TASK_TYPES[0], rng, max_receptacles=60, distractors=0, sparse=sparse)
        for sparse in (True, False)
    ]
    few, all_of_them = (len(Game(data["problem"], data["task"]).receptacles) for data in games)
    assert few < all_of_them == len(floor_plan(9).places)


def test_bad_requests() -> None:
    with pytest.raises(ValueError, match="dance"):
        generate_game(7, "dance", random.Random(0), max_receptacles=5, distractors=0)
    with pytest.raises(NoSuchGame, match="room 401"):
        generate_game(401, "pick_heat_then_place_in_recep", random.Random(0), max_receptacles=5, distractors=0)
    with pytest.raises(NoSuchGame, match="max_receptacles is 2"):
        generate_game(7, "pick_heat_then_place_in_recep", random.Random(0), max_receptacles=2, distractors=0)


def test_mangling() -> None:
    assert mangle("Apple|-00.14|+00.96") == "Apple_bar__minus_00_dot_14_bar__plus_00_dot_96"
