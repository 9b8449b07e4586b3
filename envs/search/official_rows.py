"""Reading published files: the columns of Search-R1, verl-agent and FlashRAG, and corpora of passages.

Owns: `classify`, `question_rows`, `corpus_rows`. Called by `official`. Must not know: which rows are kept, how they are
stored.

Questions: `question`, the golds in `golden_answers`, or in `reward_model` or `env_kwargs` under `ground_truth.target`;
`id`, `data_source`. Passages: `id` and `contents` (`"Title"\\ntext`), or `title` and `text`.
"""

from __future__ import annotations

import gzip
import importlib
import json
import lzma
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from envs.data_folder import DataError
from envs.search.corpus import passage_text
from envs.search.question import Question

_OTHER_NAMES = {
    "naturalquestions": "nq",
    "nqopen": "nq",
    "tqa": "triviaqa",
    "hotpot": "hotpotqa",
    "2wiki": "2wikimultihopqa",
    "2wikimultihop": "2wikimultihopqa",
    "2wikiqa": "2wikimultihopqa",
}
_COLUMNS = ("id", "question", "golden_answers", "answers", "data_source", "reward_model", "env_kwargs", "extra_info")
_AGAIN = "the file is damaged or cut short, fetch it again"
Split = Literal["train", "dev", "test"]


@dataclass(frozen=True, slots=True)
class Found:
    """A question, the split and data set it belongs to, and the file and row it came from."""

    question: Question
    split: Split
    source: str
    origin: str


def classify(path: Path) -> Literal["questions", "corpus", ""]:
    """What a file holds, by its name and its first row; "" for a file of another kind."""
    if path.suffix == ".parquet":
        return "questions"
    if not re.search(r"\.jsonl(\.gz|\.xz)?$", path.name):
        return ""
    first = next(_json_lines(path), None)
    if first is None:
        raise DataError(f"{path} is empty: {_AGAIN}")
    _, row = first
    if "question" in row or "env_kwargs" in row or "reward_model" in row:
        return "questions"
    if "contents" in row or "text" in row:
        return "corpus"
    raise DataError(
        f"{path}, row 1: columns {', '.join(map(str, row))}: neither questions (question, golden_answers) nor passages "
        "(id, contents)"
    )


def corpus_rows(path: Path) -> Iterator[tuple[str, str]]:
    """(id, contents) of each passage."""
    for number, row in _json_lines(path):
        name, contents = row.get("id"), row.get("contents")
        if contents is None and isinstance(row.get("text"), str):
            contents = passage_text(str(row.get("title", "")), row["text"])
        if isinstance(name, bool) or not isinstance(name, str | int) or not isinstance(contents, str):
            raise DataError(f"{path}, row {number}: no id, or no text in contents: not a passage, or damaged")
        yield str(name), contents


def question_rows(path: Path) -> Iterator[Found]:
    """The questions of a file in its order."""
    rows = _parquet_rows(path) if path.suffix == ".parquet" else _json_lines(path)
    number = 0
    for number, row in rows:
        yield _question(row, path, number)
    if not number:
        raise DataError(f"{path} is empty: {_AGAIN}")


def _question(row: Mapping[str, Any], path: Path, number: int) -> Found:
    origin = f"{path}, row {number}"
    inner, extra = _mapping(row.get("env_kwargs")), _mapping(row.get("extra_info"))
    text = row.get("question") or inner.get("question") or extra.get("question")
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{origin}: no text in question: {_AGAIN}")
    golds = _golds(row, inner)
    if not golds:
        raise DataError(f"{origin}: no answer in golden_answers or ground_truth.target: {_AGAIN}")
    source = data_set(row.get("data_source") or inner.get("data_source"), path)
    split = _split(path, extra.get("split"))
    name = next((str(key) for key in (row.get("id"), extra.get("index")) if key not in (None, "")), f"{split}_{number}")
    return Found(Question(f"{source}/{name}", text.strip(), golds, source), split, source, origin)


def _golds(row: Mapping[str, Any], inner: Mapping[str, Any]) -> tuple[str, ...]:
    truths = [_mapping(holder.get("ground_truth")) for holder in (_mapping(row.get("reward_model")), inner)]
    for found in (row.get("golden_answers"), row.get("answers"), *(truth.get("target") for truth in truths)):
        listed = [found] if isinstance(found, str | int | float) else found
        if isinstance(listed, list | tuple):
            golds = [str(gold).strip() for gold in listed if isinstance(gold, str | int | float)]
            kept = tuple(dict.fromkeys(gold for gold in golds if gold))
            if kept:
                return kept
    return ()


def _mapping(value: Any) -> Mapping[str, Any]:
    """A nested column; some files hold it as JSON text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}
    return value if isinstance(value, Mapping) else {}


def data_set(named: object, path: Path) -> str:
    """The data set in our spelling: from the row, else from the file's or its folder's name."""
    for name in (named, *_words(path.name.split(".", 1)[0]), path.parent.name):
        plain = re.sub(r"[^a-z0-9]", "", str(name or "").lower()).removeprefix("searchr1").removeprefix("flashrag")
        if plain and plain not in ("train", "dev", "test", "validation", "valid", "val"):
            return _OTHER_NAMES.get(plain, plain)
    raise DataError(f"{path}: no column data_source, and neither the file nor its folder is named after a data set")


def _words(stem: str) -> list[str]:
    """A name without its split: `nq_train` -> `nq`."""
    return [re.sub(r"(^|[_.-])(train|dev|test|validation|valid|val)($|[_.-])", "", stem.lower())]


def _split(path: Path, named: object) -> Split:
    for text in (path.name.lower(), str(named or "").lower()):
        for word, split in _SPLITS.items():
            if re.search(rf"(^|[^a-z]){word}($|[^a-z])", text):
                return split
    raise DataError(f"{path}: neither the file's name nor extra_info.split says train, dev or test: rename the file")


_SPLITS: dict[str, Split] = {
    "train": "train",
    "dev": "dev",
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "test": "test",
}


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row number from 1, row) of a JSON lines file, plain, .gz or .xz."""
    number = 0
    try:
        with _opened(path) as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, _json_row(line, path, number)
    except (OSError, EOFError, lzma.LZMAError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path}, row {number + 1}: {error}: {_AGAIN}") from error


def _json_row(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}, row {number}: {error}: {_AGAIN}") from error
    if not isinstance(row, dict):
        raise DataError(f"{path}, row {number}: not a JSON object: {_AGAIN}")
    return row


def _opened(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    if path.suffix == ".xz":
        return lzma.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        pyarrow = importlib.import_module("pyarrow")  # 150 MB that only this needs
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise DataError(f"{path}: reading parquet needs the package pyarrow: run make setup") from error
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            wanted = [name for name in _COLUMNS if name in names]
            if not {"question", "env_kwargs"} & set(wanted):
                raise DataError(
                    f"{path}: columns {', '.join(names)}: no questions (question, golden_answers or env_kwargs)"
                )
            for batch in file.iter_batches(columns=wanted):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}, row {number + 1}: {error}: {_AGAIN}") from error
