"""Official games: both published shapes are read, the selection is the published one, damage is named."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from envs.alfworld.games import panel_games
from envs.alfworld.official import PUBLISHED, fetch_official
from envs.data_folder import DataError, data_folder
from envs.panel import load_panel

BASE = [stored.data() for stored in panel_games("seen")[:6]]
GRAMMAR = '{"task": [{"rhs": "Your task is to: TASK."}]}\n'


def row(number: int, split: str) -> dict[str, Any]:
    """An own game dressed up as an official line."""
    data = {key: value for key, value in BASE[number].items() if key != "panel"}
    return {**data, "id": f"{split}/{data['id']}"}


def write_folder(root: Path, rows: list[dict[str, Any]], **game: Any) -> None:
    for data in rows:
        place = root / "json_2.1.1" / data["id"]
        place.mkdir(parents=True)
        trajectory = {"task_type": data["task_type"], "pddl_params": {}, "scene": {"scene_num": data["scene"]}}
        (place / "traj_data.json").write_text(json.dumps(trajectory))
        grammar = GRAMMAR.replace("TASK", data["task"])
        content = {"grammar": grammar, "pddl_problem": data["problem"] + ")", "solvable": True, **game}
        (place / "game.tw-pddl").write_text(json.dumps(content))


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(data) + "\n" for data in rows).encode()
    path.write_bytes(lzma.compress(text) if path.suffix == ".xz" else text)
    return path


def test_json_lines_and_folders_give_the_same_panels(tmp_path: Path) -> None:
    rows = [row(0, "valid_seen"), row(1, "valid_seen"), row(2, "train"), row(3, "valid_unseen")]
    write_folder(tmp_path / "a", rows)
    fetch_official(write_lines(tmp_path / "b.jsonl.xz", rows[::-1]), tmp_path / "from_lines")
    report = fetch_official(tmp_path / "a", tmp_path / "from_folder")
    assert report.counts == {"official-train": 1, "official-seen": 2, "official-unseen": 1}
    for panel in PUBLISHED:
        one, other = (load_panel("alfworld", panel, tmp_path / name) for name in ("from_lines", "from_folder"))
        # the folder's problem has one `)` too many, as the official ones do, so contents differ but tasks do not
        assert one.tasks == other.tasks
        assert [task.id for task in one.tasks] == sorted(task.id for task in one.tasks)


def test_the_report_says_what_is_a_subset(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "games.jsonl", [row(0, "valid_seen"), row(1, "valid_train")])
    lines = fetch_official(source, tmp_path).lines()
    assert lines[0].startswith("official-train: 1 of 3553") and "subset" in lines[0]
    assert (
        lines[1].startswith("official-seen: 1 of 140")
        and lines[2] == "official-unseen: none in this source; not stored"
    )


def test_the_published_selection(tmp_path: Path) -> None:
    movable, sliced = row(0, "train"), row(1, "train")
    movable["id"] = "train/pick_and_place_with_movable_recep-Mug-Pan-Desk-7/trial_1"
    sliced["id"] = "train/pick_and_place_simple-AppleSliced-None-Desk-7/trial_2"
    other = {**row(2, "train"), "task_type": "dance"}
    write_folder(tmp_path / "good", [movable, sliced, other, row(3, "train")])
    write_folder(tmp_path / "good", [row(4, "train")], solvable=False)
    (tmp_path / "good" / "json_2.1.1" / row(5, "train")["id"]).mkdir(parents=True)
    (tmp_path / "good" / "json_2.1.1" / row(5, "train")["id"] / "traj_data.json").write_text("{}")
    report = fetch_official(tmp_path / "good", tmp_path)
    assert report.counts == {"official-train": 1}
    assert sum(report.skipped.values()) == 5 and report.skipped["movable receptacle or sliced object"] == 2


def test_one_content_in_two_splits_is_refused(tmp_path: Path) -> None:
    twin = {**row(0, "valid_seen"), "id": "valid_unseen/another/trial_9"}
    with pytest.raises(DataError, match="valid_unseen/another/trial_9 .*has the content of"):
        fetch_official(write_lines(tmp_path / "g.jsonl", [row(0, "valid_seen"), twin]), tmp_path)
    assert not (tmp_path / "alfworld").exists()


def test_the_extract_of_the_training_split_is_not_counted_twice(tmp_path: Path) -> None:
    """valid_train repeats games of train; two equal games inside train would stay, as they do in the original."""
    again = {**row(0, "train"), "id": "train/again/trial_1"}
    rows = [row(0, "valid_train"), row(0, "train"), again, row(1, "valid_train")]
    report = fetch_official(write_lines(tmp_path / "g.jsonl", rows), tmp_path)
    assert report.counts == {"official-train": 3} and report.skipped["in valid_train and in train"] == 1
    ids = {task.id for task in load_panel("alfworld", "official-train", tmp_path).tasks}
    assert ids == {row(0, "train")["id"], again["id"], row(1, "valid_train")["id"]}


def test_too_many_games(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PUBLISHED, "official-seen", 1)
    with pytest.raises(DataError, match="2 games for official-seen, only 1"):
        fetch_official(write_lines(tmp_path / "g.jsonl", [row(0, "valid_seen"), row(1, "valid_seen")]), tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"id": "valid_seen/x"', "line 1: .*damaged"),
        (b'{"id": "valid_seen/x", "task": "t"}', "line 1: no text task_type, problem"),
        (b"[]\n", "line 1: no text id"),
        (b"\xff\xfe", "damaged"),
        (b"", "holds no playable game"),
        (json.dumps({**row(0, "valid_seen"), "problem": "(define"}).encode(), "valid_seen/.*cut short"),
        (json.dumps({**row(0, "valid_seen"), "id": "mine/x"}).encode(), "'mine/x' belongs to none of train"),
    ],
)
def test_damaged_lines(tmp_path: Path, content: bytes, message: str) -> None:
    source = tmp_path / "games.jsonl"
    source.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        fetch_official(source, tmp_path)
    assert str(source) in str(caught.value)


def test_truncated_archive(tmp_path: Path) -> None:
    whole = write_lines(tmp_path / "g.jsonl.xz", [row(number, "valid_seen") for number in range(4)]).read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 5):
        (tmp_path / "g.jsonl.xz").write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"g\.jsonl\.xz.*(damaged|holds no playable)"):
            fetch_official(tmp_path / "g.jsonl.xz", tmp_path)


@pytest.mark.parametrize("name", ["game.tw-pddl", "traj_data.json"])
def test_damaged_file_of_a_folder_is_named(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path, [row(0, "train")])
    path = tmp_path / "json_2.1.1" / row(0, "train")["id"] / name
    path.write_text('{"grammar": ')
    with pytest.raises(DataError, match=f"{name}.*fetch it again"):
        fetch_official(tmp_path, tmp_path)


def test_game_without_task_sentence(tmp_path: Path) -> None:
    write_folder(tmp_path, [row(0, "train")], grammar="Your task is to: UNKNOWN GOAL.")
    with pytest.raises(DataError, match="no task sentence"):
        fetch_official(tmp_path, tmp_path)


def test_sources_that_are_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        fetch_official(tmp_path / "nowhere", tmp_path)
    (tmp_path / "games.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="unpack the archive first"):
        fetch_official(tmp_path / "games.zip", tmp_path)
    with pytest.raises(DataError, match="holds no playable game"):
        fetch_official(tmp_path, tmp_path)


def test_stored_panel_that_is_missing_empty_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="t2po data get alfworld"):
        load_panel("alfworld", "official-seen", tmp_path)
    path = tmp_path / "alfworld" / "official-seen.jsonl.xz"
    path.parent.mkdir()
    path.write_bytes(lzma.compress(b""))
    with pytest.raises(DataError, match="holds no games"):
        load_panel("alfworld", "official-seen", tmp_path)
    path.write_bytes(b"not xz")
    with pytest.raises(DataError, match="damaged"):
        load_panel("alfworld", "official-seen", tmp_path)


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    source = write_lines(tmp_path / "g.jsonl", [row(0, "train")])
    with pytest.raises(DataError, match="cannot be written"):
        fetch_official(source, tmp_path / "file")


def test_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("T2PO_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    monkeypatch.setenv("T2PO_DATA", "")
    assert data_folder() == Path.home() / ".local/share/t2po"
