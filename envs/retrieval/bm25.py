"""Keyword search by BM25 with Lucene's terms and Lucene's scores.

Owns: `Bm25Index`. Called by the environments that search. Must not know: products, passages, who asks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from envs.data_folder import DataError
from envs.retrieval.analyzer import analyze
from envs.retrieval.array_folder import Array, ArrayFolder, open_arrays
from envs.retrieval.postings import write_postings
from envs.retrieval.ranking import TermList, best_documents
from envs.retrieval.weights import term_weight

KIND = "t2po BM25 index, format 1"
"""The number goes up with every change of the arrays, the analyzer or the formula."""


class Bm25Index:
    """An index over documents 0..n-1. Searching changes nothing in it, so threads and processes may share one."""

    def __init__(self, facts: dict[str, Any], arrays: dict[str, Array]) -> None:
        self.num_documents: int = facts["num_documents"]
        self._num_with_words: int = facts["num_with_words"]
        self._starts = arrays["starts"]
        self._documents = arrays["documents"]
        self._parts = arrays["parts"]
        self._best = arrays["best"]
        self._ranks = arrays.get("ranks")
        self._place = lru_cache(maxsize=1 << 14)(_Words(arrays["words"], arrays["word_ends"]).find)

    @classmethod
    def build(
        cls,
        texts: Iterable[str],
        keys: Sequence[str] | None = None,
        folder: Path | None = None,
        progress: Callable[[int], None] = lambda _: None,
        *,
        k1: float = 0.9,
        b: float = 0.4,
    ) -> Bm25Index:
        """Index texts, numbered in the order given; in memory, or in `folder`, which then replaces an older one.

        `keys` decide between equal scores: ascending by their bytes. Without them the number decides. `progress` is
        called now and then with the number of documents read. Raises DataError.
        """
        store = ArrayFolder(folder)
        try:
            corpus = write_postings(texts, store, k1, b, progress)
            if keys is not None:
                store.add("ranks", _ranks(keys, corpus.num_documents))
            facts = {"num_documents": corpus.num_documents, "num_with_words": corpus.num_with_words, "k1": k1, "b": b}
            return cls(*store.finish(KIND, facts))
        except BaseException:
            store.discard()
            raise

    @classmethod
    def open(cls, folder: Path) -> Bm25Index:
        """The index that `build` left in a folder, mapped into memory. Raises DataError when it is not whole."""
        return cls(*open_arrays(folder, KIND))

    def search(self, query: str, k: int) -> list[tuple[int, float]]:
        """At most `k` (document number, score > 0), best first. A query without a known term finds nothing."""
        if k <= 0:
            return []
        lists = []
        for term, count in Counter(analyze(query)).items():
            place = self._place(term)
            if place >= 0:
                lists.append(self._list(place, count))
        if not lists:
            return []
        documents, scores = best_documents(lists, k, self.num_documents, self._ranks)
        return list(zip(documents.tolist(), scores.tolist(), strict=True))

    def _list(self, place: int, count: int) -> TermList:
        begin, end = int(self._starts[place]), int(self._starts[place + 1])
        weight = term_weight(self._num_with_words, end - begin, count)
        bound = weight - weight / self._best[place]
        return TermList(self._documents[begin:end], self._parts[begin:end], weight, bound)


def _ranks(keys: Sequence[str], num_documents: int) -> Array:
    """The place of each document when sorted by key; Lucene compares the bytes."""
    if len(keys) != num_documents:
        raise DataError(f"{len(keys)} keys for {num_documents} texts: give one key a text")
    order = sorted(range(len(keys)), key=lambda number: keys[number].encode("utf-8", "surrogatepass"))
    ranks = np.empty(len(keys), dtype=np.int32)
    ranks[order] = np.arange(len(keys), dtype=np.int32)
    return ranks


class _Words:
    """The terms, ascending, as one run of bytes: nothing is unpacked when an index is opened."""

    def __init__(self, words: Array, ends: Array) -> None:
        self._words = words.data
        self._ends = ends.data

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, place: int) -> bytes:
        return self._words[self._ends[place] : self._ends[place + 1]].tobytes()

    def find(self, term: str) -> int:
        """The place of a term, -1 when no document has it."""
        wanted = term.encode("utf-8", "surrogatepass")
        place = bisect_left(self, wanted)
        return place if place < len(self) and self[place] == wanted else -1
