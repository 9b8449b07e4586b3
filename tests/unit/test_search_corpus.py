"""Corpora on disk and the retriever over them: whole or not at all, shared, built once, damage is named."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from envs.data_folder import DataError
from envs.retrieval.bm25 import Bm25Index
from envs.search.corpus import Corpus, passage_text, write_corpus
from envs.search.factbook import factbook_folder
from envs.search.retriever import IndexRetriever, local_retriever, open_index
from tests.unit.search_suite import small_retriever, suite_data

ROWS = [("7", passage_text("Mali", "Capital: Bamako.\nRiver: Niger.")), ("x", "Zürich \u2028 \u202e 北京"), ("0", "")]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c", ROWS)
    assert [(passage.id, passage.contents) for passage in corpus] == ROWS
    assert (
        len(corpus) == 3
        and corpus[1:][0].id == "x"
        and next(corpus.contents()) == '"Mali"\nCapital: Bamako.\nRiver: Niger.'
    )
    again = Corpus.open(tmp_path / "c")
    assert again.hash == corpus.hash != write_corpus(tmp_path / "d", ROWS[::-1]).hash
    with pytest.raises(IndexError, match="passage 3 of 3"):
        again[3]


def test_an_older_corpus_is_replaced_and_a_failed_one_leaves_nothing(tmp_path: Path) -> None:
    write_corpus(tmp_path / "c", ROWS)
    assert len(write_corpus(tmp_path / "c", ROWS[:1])) == 1
    with pytest.raises(DataError, match="id '7' occurs twice, in row 1 and row 4"):
        write_corpus(tmp_path / "c", [*ROWS, ROWS[0]])
    with pytest.raises(DataError, match="without passages"):
        write_corpus(tmp_path / "e", [])
    assert len(Corpus.open(tmp_path / "c")) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_damage_is_named(tmp_path: Path) -> None:
    def damaged(name: str, content: bytes) -> Path:
        folder = tmp_path / name.replace(".", "_") / str(len(content))
        write_corpus(folder, ROWS)
        (folder / name).write_bytes(content)
        return folder

    whole = (write_corpus(tmp_path / "whole", ROWS).folder / "passages.jsonl").read_bytes()
    for name, content in (
        ("passages.jsonl", whole[:-1]),
        ("passages.jsonl", b""),
        ("offsets.npy", b"not numpy"),
        ("corpus.json", b"{"),
        ("corpus.json", b"{}"),
        ("corpus.json", json.dumps({"format": "another"}).encode()),
    ):
        with pytest.raises(DataError, match="damaged"):
            Corpus.open(damaged(name, content))
    folder = damaged("passages.jsonl", b"x" * len(whole))
    with pytest.raises(DataError, match="passages.jsonl, line 1: .*damaged"):
        Corpus.open(folder)[0]
    with pytest.raises(DataError, match="corpus.json is missing"):
        Corpus.open(tmp_path / "nowhere")


def test_searching_a_small_corpus(tmp_path: Path) -> None:
    retriever = small_retriever(tmp_path / "c", [contents for _, contents in ROWS])
    assert [passage.id for passage in retriever.search("capital of Mali", 3)] == ["0"]
    assert retriever.search("capital of Mali", 3)[0].score > 0
    assert retriever.search("nothing like it", 3) == retriever.search("", 3) == []
    assert retriever.search_many(["Bamako", "???"], 1) == [retriever.search("Bamako", 1), []]
    for query in ("\ud800", "\x00", "'\";--", "x" * 100_000):
        assert retriever.search(query, 3) == []


class Batched:
    """An index that takes many queries at once."""

    def __init__(self, inner: Bm25Index) -> None:
        self.inner = inner
        self.batches: list[int] = []

    def search(self, query: str, k: int) -> list[tuple[int, float]]:
        return self.inner.search(query, k)

    def search_many(self, queries: Sequence[str], k: int) -> list[list[tuple[int, float]]]:
        self.batches.append(len(queries))
        return [self.inner.search(query, k) for query in queries]


def test_an_index_for_many_queries_gets_them_all_at_once(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c", ROWS)
    one = Bm25Index.build(corpus.contents())
    many = Batched(one)
    queries = ["Bamako", "\ud800", "river of Mali", ""]
    expected = IndexRetriever(corpus, one, "bm25").search_many(queries, 2)
    assert IndexRetriever(corpus, many, "dense").search_many(queries, 2) == expected and many.batches == [4]


def test_one_retriever_a_process_opened_once() -> None:
    data, found = suite_data(), list[object]()
    threads = [threading.Thread(target=lambda: found.append(local_retriever(data_dir=data))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(found) == 8 and len({id(retriever) for retriever in found}) == 1


def test_threads_get_the_same_passages() -> None:
    retriever = local_retriever(data_dir=suite_data())
    queries = [f"capital of {name}" for name in ("Mali", "Peru", "Fiji", "Laos")] * 10
    expected = retriever.search_many(queries, 3)
    found: dict[int, list[object]] = {}

    def work(number: int) -> None:
        found[number] = [retriever.search(query, 3) for query in queries]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert list(found.values()) == [expected] * 4


def test_a_missing_or_damaged_index_is_built_again(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c", ROWS)
    built: list[int] = []
    query, expected = "Bamako", open_index(corpus, "bm25", built.append).search("Bamako", 3)
    folder = next(tmp_path.glob("c/bm25-*"))
    assert expected[0][0] == 0 and open_index(corpus, "bm25").search(query, 3) == expected
    next(folder.glob("*.npy")).write_bytes(b"damaged")
    assert open_index(corpus, "bm25").search(query, 3) == expected
    shutil.rmtree(folder)
    assert open_index(corpus, "bm25").search(query, 3) == expected
    # an index of another corpus is not taken for this one's
    other = write_corpus(tmp_path / "c", ROWS[1:])
    assert open_index(other, "bm25").search(query, 3) == []


def test_unknown_corpora_and_indexes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no corpus 'wiki-18' .*t2po data get search"):
        local_retriever("wiki-18", data_dir=tmp_path)
    with pytest.raises(DataError, match="no corpus '../x'"):
        local_retriever("../x", data_dir=tmp_path)
    with pytest.raises(DataError, match="index 'faiss' is unknown: use bm25, dense"):
        local_retriever(kind="faiss", data_dir=tmp_path)  # type: ignore[arg-type]


def test_a_corpus_that_was_stored_is_found_by_its_name(tmp_path: Path) -> None:
    write_corpus(tmp_path / "search" / "mine", ROWS)
    assert local_retriever("mine", data_dir=tmp_path).search("river", 1)[0].id == "7"


def test_the_suite_is_found_where_it_was_made() -> None:
    assert local_retriever(data_dir=suite_data()).corpus.folder == factbook_folder(suite_data()) / "corpus"
