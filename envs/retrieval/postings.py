"""Texts -> posting lists: for each term the documents that have it and how much it weighs there.

Owns: `write_postings`. Called by `bm25`. Must not know: queries, folders' layout.

Texts are taken a chunk at a time: tokens become (term, document, frequency) rows by one sort a chunk, and the chunks
are merged at the end, when document frequencies and the mean length are known. Until then they lie where the index
will lie, in memory or on disk: about 6 bytes a row.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.records import Int32
from envs.retrieval.analyzer import analyze
from envs.retrieval.array_folder import ArrayFolder
from envs.retrieval.weights import frequency_factors, length_codes

_CHUNK_TOKENS = 4_000_000
_CHUNK_DOCUMENTS = 1 << 16


@dataclass(frozen=True, slots=True)
class Corpus:
    """What the texts add up to. `num_with_words` documents have at least one term; lengths are in terms."""

    num_documents: int
    num_with_words: int
    num_tokens: int


class _Numbers(dict[str, int]):
    """Term -> number, in the order of first use."""

    def __missing__(self, term: str) -> int:
        self[term] = number = len(self)
        return number


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Rows by term, then document. terms, counts [num distinct terms]; documents, frequencies [num rows]."""

    terms: NDArray[np.int64]
    counts: NDArray[np.int64]
    documents: Int32
    frequencies: NDArray[np.unsignedinteger]


def write_postings(
    texts: Iterable[str], store: ArrayFolder, k1: float, b: float, progress: Callable[[int], None]
) -> Corpus:
    """Analyse texts and write the arrays

    words [bytes of all terms, ascending], word_ends [num_terms + 1], starts [num_terms + 1], documents [num_rows],
    parts [num_rows] (d of `weights`), best [num_terms] (largest d of a term).
    """
    numbers = _Numbers()
    chunks: list[_Chunk] = []
    lengths = array("q")
    tokens: list[int] = []
    first = 0
    for text in texts:
        before = len(tokens)
        tokens.extend(map(numbers.__getitem__, analyze(text)))
        lengths.append(len(tokens) - before)
        if len(tokens) >= _CHUNK_TOKENS or len(lengths) - first >= _CHUNK_DOCUMENTS:
            chunks.append(_rows(tokens, lengths[first:], first, store))
            tokens, first = [], len(lengths)
            progress(first)
    chunks.append(_rows(tokens, lengths[first:], first, store))
    all_lengths = np.array(lengths, dtype=np.int64)
    corpus = Corpus(len(lengths), int(np.count_nonzero(all_lengths)), int(all_lengths.sum()))
    mean = corpus.num_tokens / corpus.num_with_words if corpus.num_with_words else 1.0
    factors = frequency_factors(mean, k1, b)[length_codes(all_lengths)]
    _merge(chunks, _write_words(numbers, store), factors, store)
    progress(corpus.num_documents)
    return corpus


def _rows(tokens: list[int], lengths: array[int], first: int, store: ArrayFolder) -> _Chunk:
    """The rows of the documents from number `first` on; `lengths` says how many of the tokens each one has."""
    spans = np.array(lengths, dtype=np.int64)
    places = np.repeat(np.arange(len(spans)), spans)
    pairs = np.array(tokens, dtype=np.int64) * len(spans) + places
    pairs.sort()
    at = np.flatnonzero(np.diff(pairs, prepend=-1))
    frequencies = np.diff(at, append=len(pairs))
    terms, documents = np.divmod(pairs[at], max(1, len(spans)))
    term_at = np.flatnonzero(np.diff(terms, prepend=-1))
    return _Chunk(
        store.set_aside(terms[term_at]),
        store.set_aside(np.diff(term_at, append=len(terms))),
        store.set_aside((documents + first).astype(np.int32)),
        store.set_aside(frequencies.astype(np.min_scalar_type(int(frequencies.max(initial=0))))),
    )


def _write_words(numbers: _Numbers, store: ArrayFolder) -> NDArray[np.int64]:
    """Write the terms in ascending order of their UTF-8 bytes; the place of each number in that order."""
    words = sorted((term.encode("utf-8", "surrogatepass"), number) for term, number in numbers.items())
    store.add("words", np.frombuffer(b"".join(word for word, _ in words), dtype=np.uint8))
    ends = np.zeros(len(words) + 1, dtype=np.int64)
    np.cumsum([len(word) for word, _ in words], out=ends[1:])
    store.add("word_ends", ends)
    places = np.empty(len(words), dtype=np.int64)
    places[[number for _, number in words]] = np.arange(len(words))
    return places


def _merge(chunks: list[_Chunk], places: NDArray[np.int64], factors: NDArray[np.float32], store: ArrayFolder) -> None:
    starts = np.zeros(len(places) + 1, dtype=np.int64)
    for chunk in chunks:
        starts[places[chunk.terms] + 1] += chunk.counts
    np.cumsum(starts, out=starts)
    store.add("starts", starts)
    documents = store.new("documents", (int(starts[-1]),), np.int32)
    parts = store.new("parts", (int(starts[-1]),), np.float32)
    best = np.zeros(len(places), dtype=np.float32)
    free = starts[:-1].copy()
    while chunks:
        chunk = chunks.pop(0)  # chunks are in document order, so every list comes out in document order
        if not len(chunk.terms):
            continue
        rows = places[chunk.terms]
        begins = np.cumsum(chunk.counts) - chunk.counts
        targets = np.repeat(free[rows] - begins, chunk.counts) + np.arange(len(chunk.documents))
        values = np.float32(1) + chunk.frequencies.astype(np.float32) * factors[chunk.documents]
        documents[targets] = chunk.documents
        parts[targets] = values
        best[rows] = np.maximum(best[rows], np.maximum.reduceat(values, begins))
        free[rows] += chunk.counts
    store.add("best", best)
