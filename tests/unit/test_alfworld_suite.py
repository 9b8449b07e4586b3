"""The embedded suite: what it promises, and that its command makes it again."""

from __future__ import annotations

import lzma
import statistics
from collections import Counter

import pytest

from envs.alfworld.engine import Engine
from envs.alfworld.floorplans import ROOM_KINDS, TASK_TYPES, room_kind, train_scenes, unseen_scenes
from envs.alfworld.games import panel_games
from envs.alfworld.planner import plan
from envs.alfworld.suite import (
    MAX_SEARCH_TURNS,
    PANEL_SIZES,
    SUITE_FILE,
    appearance,
    encode_suite,
    generate_suite,
    search_turns,
    suite_hash,
)

SUITE_HASH = "2667b32812f91a690a38d29ade3bf7f0"
"""Results are only comparable on one suite: a change here is a new suite and needs a word in the report."""


def test_stored_suite_is_the_published_one() -> None:
    assert suite_hash(lzma.decompress(SUITE_FILE.read_bytes())) == SUITE_HASH
    assert SUITE_FILE.stat().st_size < 1_500_000


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_command_makes_the_stored_suite_again() -> None:
    assert suite_hash(encode_suite(generate_suite())) == SUITE_HASH


@pytest.mark.parametrize("panel", PANEL_SIZES)
def test_panel_promises(panel: str) -> None:
    games = panel_games(panel)
    assert len(games) == PANEL_SIZES[panel]
    scenes = {scene for kind in ROOM_KINDS for scene in (unseen_scenes if panel == "unseen" else train_scenes)(kind)}
    kinds: Counter[str] = Counter()
    turns = []
    for stored in games[:300]:
        data, game = stored.data(), stored.game()
        assert data["scene"] in scenes
        kinds[room_kind(data["scene"])] += 1
        assert 4 <= len(game.receptacles) <= 8
        assert len(set(game.location_of)) == len(game.location_of)
        needed = search_turns(game, MAX_SEARCH_TURNS)
        assert needed is not None and plan(Engine(game)) and not Engine(game).won()
        turns.append(needed)
    assert 5 <= statistics.median(turns) <= 8
    assert set(kinds) == set(ROOM_KINDS) and min(kinds.values()) >= len(turns) // 10
    assert {stored.kind for stored in games} == set(TASK_TYPES)
    shares = Counter(stored.kind for stored in games)
    assert min(shares, key=lambda kind: shares[kind]) == "pick_two_obj_and_place" or panel == "seen"


def test_no_game_looks_like_one_of_another_panel() -> None:
    """Stronger than the content hash: coordinates could differ where the words do not."""
    looks = {panel: {appearance(stored.game()) for stored in panel_games(panel)} for panel in ("seen", "unseen")}
    train = {appearance(stored.game()) for stored in panel_games("train")}
    assert len(train) == PANEL_SIZES["train"]
    assert not train & looks["seen"] and not train & looks["unseen"] and not looks["seen"] & looks["unseen"]
