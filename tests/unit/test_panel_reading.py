"""Panels are read once while their files stay as they are, and anew when one was changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from envs.data_folder import DataError, write_lines
from envs.environment import Environment, Expert, PromptStyle, TaskRow, View, find_environment
from envs.file_mark import mark_file
from envs.panel import load_panel
from envs.records import Task
from envs.search.panels import official_file
from envs.search.question import Question, question_row
from envs.settings import EnvSettings
from envs.text_env import TextEnv
from tests.unit.search_suite import suite_data


class Letters(Environment):
    """A task a line of PANEL.txt; `read` names the panels that were read. Plays nothing."""

    panels = ("train", "test", "other")
    apart = (("train", "test"), ("train", "other"))

    def __init__(self) -> None:
        self.read: list[str] = []

    def panel_rows(self, panel: str, data_dir: Path | None = None) -> list[TaskRow]:
        assert data_dir is not None
        self.read.append(panel)
        return [TaskRow(line, "letter", line) for line in (data_dir / f"{panel}.txt").read_text().split()]

    def panel_files(self, panel: str, data_dir: Path | None = None) -> tuple[Path, ...] | None:
        assert data_dir is not None
        return (data_dir / f"{panel}.txt",)

    def make(self, settings: EnvSettings, data_dir: Path | None = None) -> TextEnv:
        raise NotImplementedError

    def render(self, style: PromptStyle, view: View) -> str:
        raise NotImplementedError

    def expert(self, task: Task, settings: EnvSettings, data_dir: Path | None = None) -> Expert:
        raise NotImplementedError


class Unnamed(Letters):
    """Does not say which files its panels follow from."""

    def panel_files(self, panel: str, data_dir: Path | None = None) -> None:
        return None


@pytest.fixture
def letters(tmp_path: Path) -> Iterator[Letters]:
    for panel, text in (("train", "a\nb"), ("test", "c\nd"), ("other", "e")):
        (tmp_path / f"{panel}.txt").write_text(text)
    find_environment.cache_clear()
    found = find_environment(f"{__name__}:Letters")
    assert isinstance(found, Letters)
    yield found
    find_environment.cache_clear()


def test_an_unchanged_panel_is_read_once_by_whoever_loads_it(letters: Letters, tmp_path: Path) -> None:
    train = load_panel(letters.name, "train", tmp_path)
    assert sorted(letters.read) == ["other", "test", "train"]
    assert load_panel(letters.name, "train", tmp_path) is train
    load_panel(letters.name, "test", tmp_path)  # compared with train, which is known
    assert len(letters.read) == 3


@pytest.mark.parametrize("touched", ["size", "time"])
def test_a_changed_panel_is_read_anew_and_compared_again(letters: Letters, tmp_path: Path, touched: str) -> None:
    path = tmp_path / "test.txt"
    before, stat = load_panel(letters.name, "test", tmp_path), path.stat()
    path.write_text("c\nx\ny" if touched == "size" else "c\nx")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + (touched == "time")))
    after = load_panel(letters.name, "test", tmp_path)
    assert after.hash != before.hash and after.tasks[1].id == "x"
    assert letters.read.count("test") == 2 and letters.read.count("train") == 1
    path.write_text("c\na leak")
    with pytest.raises(DataError, match="task a of panel 'test' has the content of task a of panel 'train'"):
        load_panel(letters.name, "train", tmp_path)


def test_a_panel_that_is_damaged_is_not_remembered(letters: Letters, tmp_path: Path) -> None:
    path = tmp_path / "test.txt"
    stat = path.stat()
    path.write_text("c\nc")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    for _ in range(2):
        with pytest.raises(DataError, match="occurs twice"):
            load_panel(letters.name, "test", tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=r"test.txt: No such file.*t2po data get"):
        load_panel(letters.name, "test", tmp_path)


def test_a_panel_of_unnamed_files_is_read_at_every_load(letters: Letters, tmp_path: Path) -> None:
    unnamed = find_environment(f"{__name__}:Unnamed")
    assert isinstance(unnamed, Unnamed)
    for _ in range(2):
        load_panel(unnamed.name, "train", tmp_path)
    assert unnamed.read.count("train") == 2


@pytest.mark.parametrize("env_name", ["alfworld", "webshop", "search"])
def test_the_panels_that_ship_are_read_once(env_name: str) -> None:
    data = suite_data()
    assert load_panel(env_name, "seen", data) is load_panel(env_name, "seen", data)


def test_official_questions_that_were_fetched_again_are_read_anew(tmp_path: Path) -> None:
    rows = [question_row(Question(f"nq-{number}", f"who is {number}", ("a",), "nq")) for number in range(3)]
    path = write_lines(official_file("test", tmp_path), rows[:2])
    first = mark_file(path)
    panel = load_panel("search", "official-nq", tmp_path)
    assert len(panel.tasks) == 2 and load_panel("search", "official-nq", tmp_path) is panel
    write_lines(path, rows)
    assert mark_file(path) != first
    assert len(load_panel("search", "official-nq", tmp_path).tasks) == 3
