"""A folder of arrays is whole, or its error says what is wrong and what to do."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from envs.data_folder import DataError
from envs.retrieval.array_folder import ArrayFolder, open_arrays
from envs.retrieval.bm25 import Bm25Index

KIND = "test, format 1"


def store(folder: Path) -> Path:
    arrays = ArrayFolder(folder)
    arrays.new("squares", 10, np.int64)[:] = np.arange(10) ** 2
    arrays.add("nothing", np.empty((0, 3), dtype=np.float16))
    arrays.finish(KIND, {"name": "squares"})
    return folder


def test_what_was_stored_comes_back(tmp_path: Path) -> None:
    facts, arrays = open_arrays(store(tmp_path / "a"), KIND)
    assert facts == {"name": "squares"} and arrays["squares"].tolist() == [n * n for n in range(10)]
    assert arrays["nothing"].shape == (0, 3) and arrays["nothing"].dtype == np.float16
    with pytest.raises(ValueError, match="read-only"):
        arrays["squares"][0] = 1


def test_in_memory_is_the_same_without_files() -> None:
    arrays = ArrayFolder(None)
    arrays.add("numbers", np.arange(3))
    assert arrays.set_aside(np.arange(2)).tolist() == [0, 1]
    facts, found = arrays.finish(KIND, {"k": 1})
    assert facts == {"k": 1} and found["numbers"].tolist() == [0, 1, 2]


def test_what_is_set_aside_does_not_stay(tmp_path: Path) -> None:
    arrays = ArrayFolder(tmp_path / "a")
    aside = arrays.set_aside(np.arange(5))
    arrays.add("sum", np.array([aside.sum()]))
    _, found = arrays.finish(KIND, {})
    assert found["sum"].tolist() == [10]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["header.json", "sum.npy"]


def test_builders_of_one_folder_do_not_disturb_each_other(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(store, [tmp_path / "a"] * 100))
    assert open_arrays(tmp_path / "a", KIND)[0] == {"name": "squares"}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def cut(folder: Path) -> None:
    path = folder / "squares.npy"
    path.write_bytes(path.read_bytes()[:-8])


def scramble_array(folder: Path) -> None:
    path = folder / "squares.npy"
    path.write_bytes(b"x" * path.stat().st_size)


def change_header(folder: Path) -> None:
    header = json.loads((folder / "header.json").read_text())
    header["facts"]["name"] = "cubes"
    (folder / "header.json").write_text(json.dumps(header))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "header.json").unlink(), "header.json is missing: no finished index"),
        (lambda folder: (folder / "header.json").write_text("{"), "header.json: JSONDecodeError.*damaged"),
        (lambda folder: (folder / "header.json").write_text("[]"), "header.json: .*damaged"),
        (lambda folder: (folder / "header.json").write_bytes(b"\xff"), "header.json: .*damaged"),
        (change_header, "header.json: its checksum does not fit"),
        (lambda folder: (folder / "squares.npy").unlink(), "squares.npy: .*damaged"),
        (cut, r"squares.npy: \d+ bytes instead of \d+: cut short"),
        (scramble_array, "squares.npy: .*damaged"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(store(tmp_path / "a"))
    with pytest.raises(DataError, match=f"{message}.*; build .*again|{message}.*build it again"):
        open_arrays(tmp_path / "a", KIND)


def test_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds 'test, format 1', not 't2po BM25"):
        Bm25Index.open(store(tmp_path / "a"))


def test_a_place_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        ArrayFolder(tmp_path / "file" / "a")
    with pytest.raises(DataError, match="build it again"):
        open_arrays(tmp_path / "file", KIND)


@pytest.fixture
def little_space() -> Iterator[None]:
    """A file may have 64 kB at most: what a full disk looks like to a program."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("little_space")
def test_a_full_disk_is_an_error_before_anything_is_filled(tmp_path: Path) -> None:
    """Space is claimed first: writing to mapped bytes that have no place on the disk would kill the process."""
    with pytest.raises(DataError, match="cannot be written .*free space"):
        ArrayFolder(tmp_path / "a").new("large", 1 << 20, np.int64)
    with pytest.raises(DataError, match="cannot be written .*free space"):
        Bm25Index.build((f"word{n} tea" for n in range(20_000)), folder=tmp_path / "b")
    assert list(tmp_path.iterdir()) == []
