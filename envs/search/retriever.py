"""Search over a corpus of this machine, shared by all environments of a process.

Owns: the interface `Retriever`, `IndexRetriever` and `local_retriever`, which opens corpus and index once. Called by
the environment, the server and the expert. Must not know: questions, HTTP.

A corpus is `factbook`, made at first use, or the name of one that `t2po data get search` stored; an index that is
missing or damaged is built beside its corpus (bm25: a second or two for the Factbook; dense: minutes).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from envs.data_folder import DataError, data_folder
from envs.retrieval.bm25 import Bm25Index
from envs.retrieval.dense import DenseIndex
from envs.search import factbook
from envs.search.corpus import Corpus, Passage
from envs.search.one_maker import one_maker

IndexKind = Literal["bm25", "dense"]
INDEX_KINDS: tuple[IndexKind, ...] = ("bm25", "dense")
FACTBOOK = "factbook"
_BUILD_S = 4 * 3600.0
"""How long to wait for another process that builds the same index: 21 million passages take hours."""

Progress = Callable[[int], None]


class RetrievalError(DataError):
    """No retrieval service answers; the message names its address, the cause and the remedy."""


class Retriever(Protocol):
    """Finds passages: `k` at most, best first; [] when nothing is like the query. Any text is a query. Raises
    RetrievalError when the service behind it is lost."""

    def search(self, query: str, k: int) -> list[Passage]: ...


Hits = list[tuple[int, float]]


class Index(Protocol):
    """Document numbers and scores for a query, best first."""

    def search(self, query: str, k: int) -> Hits: ...


@runtime_checkable
class BatchIndex(Protocol):
    """An index that is quicker with many queries at once."""

    def search_many(self, queries: Sequence[str], k: int) -> list[Hits]: ...


class IndexRetriever:
    """A corpus and an index over it. Nothing in it changes: threads may share it."""

    def __init__(self, corpus: Corpus, index: Index, kind: str) -> None:
        self.corpus = corpus
        self.kind = kind
        self._index = index

    def search(self, query: str, k: int) -> list[Passage]:
        return self._passages(self._index.search(_plain(query), min(k, len(self.corpus))))

    def search_many(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """One list a query."""
        if not isinstance(self._index, BatchIndex):
            return [self.search(query, k) for query in queries]
        found = self._index.search_many([_plain(query) for query in queries], min(k, len(self.corpus)))
        return [self._passages(hits) for hits in found]

    def _passages(self, hits: Hits) -> list[Passage]:
        found = ((self.corpus[number], score) for number, score in hits)
        return [Passage(row.id, row.contents, score) for row, score in found]


def _plain(query: str) -> str:
    """Half a surrogate pair is no character: no index has to cope with it."""
    return query.encode("utf-8", "replace").decode("utf-8")


def local_retriever(
    corpus: str = FACTBOOK,
    kind: IndexKind = "bm25",
    data_dir: Path | None = None,
    progress: Progress = lambda count: None,
) -> IndexRetriever:
    """The retriever of this process over a corpus of this machine; the first call opens it, or builds its index and
    tells `progress` the number of passages read. Raises DataError."""
    if kind not in INDEX_KINDS:
        raise DataError(f"search index {kind!r} is unknown: use {', '.join(INDEX_KINDS)}")
    folder = (data_dir or data_folder()).resolve()
    with _opening:
        found = _opened.get((corpus, kind, folder))
        if found is None:
            passages = Corpus.open(corpus_folder(corpus, folder))
            found = IndexRetriever(passages, open_index(passages, kind, progress), kind)
            _opened[corpus, kind, folder] = found
        return found


_opening = threading.Lock()
_opened: dict[tuple[str, IndexKind, Path], IndexRetriever] = {}


def corpus_folder(name: str, data_dir: Path) -> Path:
    """Where a corpus lies; the Factbook is made if it is not there."""
    if name == FACTBOOK:
        return factbook.factbook_folder(data_dir) / "corpus"
    folder = data_dir / "search" / name
    if "/" in name or name.startswith(".") or not (folder / "corpus.json").is_file():
        raise DataError(
            f"there is no corpus {name!r} ({folder}): store it with `t2po data get search --from PATH`, or use factbook"
        )
    return folder


def open_index(corpus: Corpus, kind: IndexKind, progress: Progress = lambda count: None) -> Index:
    """The index over a corpus, built if it is missing or damaged. One process builds it. The folder is named after the
    corpus's content, so that no other corpus's index is taken for it."""
    folder = corpus.folder / f"{kind}-{corpus.hash[:8]}"
    try:
        return _index_class(kind).open(folder)
    except DataError:
        complaint = f"{folder}: another process has been building it"
        with one_maker(corpus.folder / f".{kind}.lock", _BUILD_S, complaint):
            try:
                return _index_class(kind).open(folder)  # another process has built it meanwhile
            except DataError:
                return _index_class(kind).build(corpus.contents(), folder=folder, progress=progress)


def _index_class(kind: IndexKind) -> type[Bm25Index] | type[DenseIndex]:
    return DenseIndex if kind == "dense" else Bm25Index
