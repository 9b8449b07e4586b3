"""The embedded suite: small games in train rooms and unseen rooms, the same on every machine.

Owns: how the suite is made and where it lies. Called by `envs.alfworld.games` (which reads it), the command below
and the tests. Must not know: prompts, rewards, settings.

Regenerate with `python -m envs.alfworld.suite`; a test checks that this gives the stored games again.
The games are small on purpose: 4 to 8 receptacles and 2 to 5 distractors, no two receptacles at one location,
and at most 15 turns for an agent that searches the room in the listed order.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import random
from functools import cache
from pathlib import Path

from envs.alfworld.engine import Engine, Game
from envs.alfworld.expert import SearchExpert
from envs.alfworld.floorplans import ROOM_KINDS, train_scenes, unseen_scenes
from envs.alfworld.generator import GameData, NoSuchGame, generate_game, possible_task_types
from envs.alfworld.planner import plan

SUITE_FILE = Path(__file__).parent / "data" / "suite.jsonl.xz"
PANEL_SIZES = {"train": 2560, "seen": 140, "unseen": 256}
MAX_SEARCH_TURNS = 15
_SHARE = {
    "pick_and_place_simple": 30,
    "look_at_obj_in_light": 24,
    "pick_clean_then_place_in_recep": 15,
    "pick_heat_then_place_in_recep": 12,
    "pick_cool_then_place_in_recep": 12,
    "pick_two_obj_and_place": 7,
}
_RECEPTACLES = (4, 4, 4, 5, 5, 5, 6, 6, 7, 8)  # small rooms more often: a search of 8 takes most of 15 turns
_DISTRACTORS = (2, 3, 4, 5)


def search_turns(game: Game, limit: int) -> int | None:
    """Turns that the search expert needs, or None when it is not done within `limit`."""
    engine = Engine(game)
    expert = SearchExpert(engine.reset())
    for turn in range(1, limit + 1):
        observation, _, done = engine.step(expert.decide(engine.admissible()).command)
        expert.see(observation)
        if done:
            return turn
    return None


def appearance(game: Game) -> str:
    """What an agent could tell a game by: task, receptacles, what lies where. Coordinates play no part."""
    inside = [[game.objects[o] for o in items] for items in game.first_contents]
    return json.dumps([game.task, game.receptacles, game.openable, inside])


def generate_suite() -> list[GameData]:
    """All games, train first; every line carries its `panel`. Takes about ten seconds."""
    seen: set[str] = set()
    games = []
    # unseen and seen are drawn first, so that a game that could be in two panels is an evaluation game
    for panel in ("unseen", "seen", "train"):
        rng = random.Random(f"t2po alfworld suite 1 {panel}")
        games.append([{"panel": panel, **_draw(panel, rng, seen)} for _ in range(PANEL_SIZES[panel])])
    return games[2] + games[1] + games[0]


def _draw(panel: str, rng: random.Random, seen: set[str]) -> GameData:
    """One game that no panel holds yet, neither by content nor by appearance."""
    while True:
        task_type = _weighted(rng)
        scenes_of = unseen_scenes if panel == "unseen" else train_scenes
        rooms = [rooms for kind in ROOM_KINDS if (rooms := [s for s in scenes_of(kind) if task_type in _possible(s)])]
        room = rooms[int(rng.random() * len(rooms))]
        scene = room[int(rng.random() * len(room))]
        most = _RECEPTACLES[int(rng.random() * len(_RECEPTACLES))]
        distractors = _DISTRACTORS[int(rng.random() * len(_DISTRACTORS))]
        try:
            data = generate_game(scene, task_type, rng, max_receptacles=most, distractors=distractors)
        except NoSuchGame:
            continue
        game = Game(data["problem"], data["task"])
        looks = appearance(game)
        if len(game.receptacles) < min(_RECEPTACLES) or looks in seen:
            continue
        engine = Engine(game)
        if engine.won() or plan(engine) is None or search_turns(game, MAX_SEARCH_TURNS) is None:
            continue
        seen.add(looks)
        return data


def _weighted(rng: random.Random) -> str:
    point = rng.random() * sum(_SHARE.values())
    for task_type, share in _SHARE.items():
        point -= share
        if point < 0:
            return task_type
    return "pick_and_place_simple"


@cache
def _possible(scene: int) -> tuple[str, ...]:
    return possible_task_types(scene)


def encode_suite(games: list[GameData]) -> bytes:
    """JSON lines with sorted keys: what the content hash is taken over."""
    return "".join(json.dumps(game, sort_keys=True, separators=(",", ":")) + "\n" for game in games).encode()


def suite_hash(encoded: bytes) -> str:
    return hashlib.blake2b(encoded, digest_size=16).hexdigest()


if __name__ == "__main__":
    text = encode_suite(generate_suite())
    SUITE_FILE.write_bytes(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME))
    print(f"{SUITE_FILE.name}: {len(text.splitlines())} games, hash {suite_hash(text)}")
