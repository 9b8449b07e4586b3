"""The k best documents of a few posting lists, without adding up every document where that can be avoided.

Owns: `TermList`, `best_documents`. Called by `bm25`. Must not know: words, files.

A document's score is the sum of its terms' scores: 32-bit floats, added in 64 bits, rounded to 32 at the end, as Lucene
does. The largest score of each list is known. So once k documents with at least some score are found, lists whose
largest scores add up to less cannot bring in a new document: they are only looked up for the documents that still have
a chance (MaxScore: Turtle and Flood, 1995). Rounding never changes an order, so the result is the exact one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.records import Float32, Int32

Float64 = NDArray[np.float64]

_NUM_SEEDS = 200  # documents that are looked at closely to learn early which score the k-th has at least
_FEW_ROWS = 20_000  # up to so many rows, adding everything up is quicker
_SPARSE = 40  # with more rows than a 40th of all documents, a sum for each document is quicker than sorting
_ROUNDING = 1e-6  # more than what rounding to 32 bits can add to a score, as a share of it


@dataclass(frozen=True, slots=True)
class TermList:
    """The posting list of one term of a query: documents ascending [n], parts [n] (d of `weights`), its weight w."""

    documents: Int32
    parts: Float32
    weight: np.float32
    bound: np.float32
    """Its largest score."""

    def scores(self) -> Float32:
        return self.weight - self.weight / self.parts

    def scores_of(self, documents: Int32) -> Float64:
        """The scores of these documents, 0 where the term is not in one."""
        at = np.searchsorted(self.documents, documents)
        at[at == len(self.documents)] = 0
        found = np.flatnonzero(self.documents[at] == documents)
        scores = np.zeros(len(documents))
        scores[found] = self.weight - self.weight / self.parts[at[found]]
        return scores


def best_documents(lists: list[TermList], k: int, num_documents: int, ranks: Int32 | None) -> tuple[Int32, Float32]:
    """Numbers and scores > 0 of at most `k` documents, best first; of equal ones the one with the lower rank.

    `ranks` [num_documents]; None: the number is the rank.
    """
    lists = sorted(lists, key=lambda entry: (-entry.bound, len(entry.documents)))
    if sum(len(entry.documents) for entry in lists) <= _FEW_ROWS:
        documents, scores = _sums(lists, num_documents, 0.0)
    else:
        documents, scores = _likely(lists, k, num_documents)
    return _first(documents, scores.astype(np.float32), k, ranks)


def _likely(lists: list[TermList], k: int, num_documents: int) -> tuple[Int32, Float64]:
    """Documents that may be among the best `k`, all of which are there, with their whole scores."""
    # what the lists from number i on can add to a document at most
    rest = np.append(np.cumsum([float(entry.bound) for entry in lists][::-1])[::-1], 0.0)
    num_rows = np.cumsum([len(entry.documents) for entry in lists])
    num_summed = min(len(lists), 1 + int(np.searchsorted(num_rows, _NUM_SEEDS)))
    documents, scores = _sums(lists[:num_summed], num_documents, 0.0)
    floor = _floor(documents, scores, lists[num_summed:], k)
    can_begin = int(np.count_nonzero(rest[:-1].astype(np.float32) >= floor))
    if can_begin > num_summed:
        num_summed = can_begin
        documents, scores = _sums(lists[:num_summed], num_documents, float(floor) * (1 - _ROUNDING) - rest[num_summed])
        floor = max(floor, _floor(documents, scores, lists[num_summed:], k))
    for number in range(num_summed, len(lists)):
        kept = (scores + rest[number]).astype(np.float32) >= floor
        documents, scores = documents[kept], scores[kept]
        scores += lists[number].scores_of(documents)
    return documents, scores


def _floor(documents: Int32, scores: Float64, others: list[TermList], k: int) -> np.float32:
    """A score that at least `k` documents reach; 0 when so many are not in sight."""
    if len(documents) < k:
        return np.float32(0)
    wanted = max(k, _NUM_SEEDS)
    if len(documents) > wanted:
        chosen = np.sort(np.argpartition(scores, len(scores) - wanted)[-wanted:])
        documents, scores = documents[chosen], scores[chosen]
    whole = scores + sum((entry.scores_of(documents) for entry in others), np.zeros(len(documents)))
    return np.float32(np.partition(whole, len(whole) - k)[len(whole) - k])


def _sums(lists: list[TermList], num_documents: int, at_least: float) -> tuple[Int32, Float64]:
    """The documents of the lists, ascending, and the sums of their scores; those with less may be left out."""
    if len(lists) == 1:
        return lists[0].documents, lists[0].scores().astype(np.float64)
    num_rows = sum(len(entry.documents) for entry in lists)
    if num_rows * _SPARSE > num_documents:
        totals = np.zeros(num_documents)
        for entry in lists:
            totals[entry.documents] += entry.scores()
        found = np.flatnonzero(totals >= at_least if at_least > 0 else totals)
        return found.astype(np.int32), totals[found]
    documents = np.concatenate([entry.documents for entry in lists])
    order = np.argsort(documents, kind="stable")
    documents = documents[order]
    heads = np.flatnonzero(np.diff(documents, prepend=-1))
    scores = np.concatenate([entry.scores() for entry in lists]).astype(np.float64)
    return documents[heads], np.add.reduceat(scores[order], heads)


def _first(documents: Int32, scores: Float32, k: int, ranks: Int32 | None) -> tuple[Int32, Float32]:
    if len(documents) > k:
        bound = np.partition(scores, len(scores) - k)[len(scores) - k]
        kept = scores >= bound
        documents, scores = documents[kept], scores[kept]
    order = np.lexsort((documents if ranks is None else ranks[documents], -scores))[:k]
    order = order[scores[order] > 0]
    return documents[order], scores[order]
