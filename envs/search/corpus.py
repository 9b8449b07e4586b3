"""A corpus on disk: passages with an id each, read at random without loading them.

Owns: `Corpus` and `write_corpus`. Called by `factbook`, `official`, `retriever`. Must not know: indexes, questions.

A folder with `passages.jsonl` (one `{"contents", "id"}` a line), `offsets.npy` (uint64 [n+1], where the lines begin)
and `corpus.json` (counts, sizes and the hash of all passages), which is written last.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from envs.data_folder import DataError

FORMAT = "t2po-corpus-1"
_AGAIN = "the corpus is damaged: remove the folder and make it again"
_PROGRESS_EVERY = 100_000


@dataclass(frozen=True, slots=True)
class Passage:
    """What a search gives. `contents` is `"Title"\\ntext`; `score` is the index's own, higher is better."""

    id: str
    contents: str
    score: float = 0.0


def passage_text(title: str, text: str) -> str:
    """The contents of a passage in the published form: `"Title"\\ntext`."""
    return f'"{title}"\n{text}'


class Corpus(Sequence[Passage]):
    """The passages of a folder, numbered 0..n-1 in the order in which they were written. Threads may share it."""

    def __init__(self, folder: Path, offsets: NDArray[np.uint64], lines: NDArray[np.uint8], content_hash: str) -> None:
        self.folder = folder
        self.hash = content_hash
        self._offsets = offsets
        self._lines = lines

    @classmethod
    def open(cls, folder: Path) -> Corpus:
        """The corpus that `write_corpus` left here. Raises DataError when a file is missing or has another size."""
        about = folder / "corpus.json"
        try:
            facts = json.loads(about.read_text(encoding="utf-8"))
            if facts["format"] != FORMAT:
                raise DataError(f"{about}: format {facts['format']!r}, not {FORMAT!r}: {_AGAIN}")
            offsets = np.load(folder / "offsets.npy", mmap_mode="r", allow_pickle=False)
            lines = np.memmap(folder / "passages.jsonl", dtype=np.uint8, mode="r")
            if len(lines) != facts["num_bytes"] or offsets.shape != (facts["num_passages"] + 1,):
                raise DataError(f"{folder}: {len(lines)} bytes instead of {facts['num_bytes']}: {_AGAIN}")
            return cls(folder, offsets, lines, str(facts["hash"]))
        except FileNotFoundError as error:
            raise DataError(f"{error.filename} is missing: no finished corpus is in this folder") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{folder}: {type(error).__name__} {error}: {_AGAIN}") from error

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, place: int) -> Passage: ...
    @overload
    def __getitem__(self, place: slice) -> list[Passage]: ...
    def __getitem__(self, place: int | slice) -> Passage | list[Passage]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        if not 0 <= place < len(self):
            raise IndexError(f"passage {place} of {len(self)}")
        begin, end = int(self._offsets[place]), int(self._offsets[place + 1])
        try:
            row = json.loads(self._lines[begin:end].tobytes())
            return Passage(row["id"], row["contents"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self.folder}/passages.jsonl, line {place + 1}: {error}: {_AGAIN}") from error

    def contents(self) -> Iterator[str]:
        """All texts in order: what an index is built from."""
        return (passage.contents for passage in self)


def write_corpus(
    folder: Path, passages: Iterable[tuple[str, str]], progress: Callable[[int], None] = lambda count: None
) -> Corpus:
    """Write (id, contents) pairs as a corpus; the folder appears whole or not at all, in place of an older one.

    Raises DataError for no passages, one id twice, and a folder that cannot be written.
    """
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        _write(part, passages, progress)
        move_folder(part, folder)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written ({error}): free space, or set T2PO_DATA to another folder"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Corpus.open(folder)


def move_folder(part: Path, folder: Path) -> None:
    """Rename a finished folder into place; an older one steps aside first, for those who still read it."""
    old = part.with_suffix(".old")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _write(part: Path, passages: Iterable[tuple[str, str]], progress: Callable[[int], None]) -> None:
    offsets, ids = array("Q", [0]), array("Q")
    whole = hashlib.blake2b(digest_size=16)
    with (part / "passages.jsonl").open("wb") as stream:
        for name, contents in passages:
            line = (
                json.dumps({"contents": contents, "id": name}, sort_keys=True, separators=(",", ":")).encode() + b"\n"
            )
            stream.write(line)
            whole.update(line)
            offsets.append(offsets[-1] + len(line))
            # 8 bytes a passage instead of all ids: 21 million fit into 170 MB
            ids.append(
                int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
            )
            if len(ids) % _PROGRESS_EVERY == 0:
                progress(len(ids))
    if not ids:
        raise DataError("a corpus without passages: nothing could be found in it")
    _check_ids(np.frombuffer(ids, dtype=np.uint64), part, offsets)
    np.save(part / "offsets.npy", np.frombuffer(offsets, dtype=np.uint64))
    facts = {"format": FORMAT, "num_passages": len(ids), "num_bytes": offsets[-1], "hash": whole.hexdigest()}
    (part / "corpus.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _check_ids(ids: NDArray[np.uint64], part: Path, offsets: array[int]) -> None:
    order = np.argsort(ids, kind="stable")
    twins = np.flatnonzero(ids[order][1:] == ids[order][:-1])
    if len(twins):
        first, second = int(order[twins[0]]), int(order[twins[0] + 1])
        with (part / "passages.jsonl").open("rb") as stream:
            stream.seek(offsets[first])
            name = json.loads(stream.readline())["id"]
        raise DataError(
            f"passage id {name!r} occurs twice, in row {first + 1} and row {second + 1}: the corpus is damaged"
        )
