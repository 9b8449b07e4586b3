"""Panels: hashed over content, the same everywhere, disjoint by construction."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from envs.alfworld.games import content_digest
from envs.data_folder import DataError
from envs.panel import check_disjoint, find_task, load_panel, make_panel

PANELS = {name: load_panel("alfworld", name) for name in ("train", "seen", "unseen")}


def test_embedded_panels_are_large_enough_and_disjoint() -> None:
    assert len(PANELS["train"].tasks) >= 1200 and len(PANELS["seen"].tasks) >= 140
    assert len(PANELS["unseen"].tasks) >= 134
    check_disjoint(*PANELS.values())
    assert len({panel.hash for panel in PANELS.values()}) == 3


def test_tasks_know_their_place() -> None:
    for panel in PANELS.values():
        assert [task.index for task in panel.tasks] == list(range(len(panel.tasks)))
        assert {task.panel for task in panel.tasks} == {panel.name}
        assert len({task.id for task in panel.tasks}) == len(panel.tasks)


@pytest.mark.parametrize("seed", ["0", "12345"])
def test_hash_does_not_depend_on_pythons_hash_seed(seed: str, tmp_path: Path) -> None:
    code = "from envs.panel import load_panel; p = load_panel('alfworld', 'seen'); print(p.hash, p.tasks[7].id)"
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [PANELS["seen"].hash, PANELS["seen"].tasks[7].id]


def test_hash_follows_content_not_spelling() -> None:
    assert content_digest("put a mug in desk", "(a  b)\n(c)") == content_digest("put a mug in desk", " (a b) (c)")
    assert content_digest("put a mug in desk", "(a b)") != content_digest("put a mug in desk", "(a c)")
    assert content_digest("put a mug in desk", "(a b)") != content_digest("put a cup in desk", "(a b)")
    rows = [("a", "k", "1"), ("b", "k", "2")]
    assert make_panel("alfworld", "x", rows).hash == make_panel("alfworld", "y", rows).hash
    for other in ([("a", "k", "1"), ("b", "k", "3")], [("a", "k", "1")], rows[::-1]):
        assert make_panel("alfworld", "x", rows).hash != make_panel("alfworld", "x", other).hash


def test_shared_content_is_named() -> None:
    one = make_panel("alfworld", "train", [("a", "k", "1"), ("b", "k", "2")])
    two = make_panel("alfworld", "unseen", [("c", "k", "3"), ("d", "k", "2")])
    with pytest.raises(DataError, match="task d of panel 'unseen' has the content of task b of panel 'train'"):
        check_disjoint(one, two)


def test_bad_panels() -> None:
    with pytest.raises(DataError, match="empty"):
        make_panel("alfworld", "x", [])
    with pytest.raises(DataError, match="occurs twice"):
        make_panel("alfworld", "x", [("a", "k", "1"), ("a", "k", "2")])
    with pytest.raises(DataError, match="no panel 'tests': use one of train, seen"):
        load_panel("alfworld", "tests")
    with pytest.raises(DataError, match="environment 'chess' is unknown: use alfworld, search, webshop"):
        load_panel("chess", "train")


def test_finding_a_task() -> None:
    panel = make_panel("alfworld", "official-seen", [("valid_seen/x/t1", "k", "1"), ("valid_seen/y/t1", "k", "2")])
    assert find_task(panel, "valid_seen/y/t1").index == find_task(panel, "y/t1").index == 1
    for unknown in ("t1", "z/t1", ""):
        with pytest.raises(DataError, match="has no task"):
            find_task(panel, unknown)
