"""BM25 as Lucene computes it, in 32-bit floats: what decides ties between documents.

Owns: the formula and Lucene's rounded document lengths. Called by `postings` and `bm25`. Must not know: words, files.

score of a term = w - w / d with w = idf × (how often the query has it), d = 1 + f / (k1 (1 - b + b × length / mean
length)); f counts the term in the document. Source: Lucene 8.11 (BM25Similarity, SmallFloat), checked against it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from envs.records import Float32


def _kept_lengths() -> NDArray[np.int64]:
    """The 256 document lengths that Lucene can tell apart: all up to 40, then steps of an eighth of a power of two."""
    small = list(range(24 + 8))
    large = [24 + ((8 + mantissa) << shift) for shift in range(28) for mantissa in range(8)]
    return np.array(small + large, dtype=np.int64)


KEPT_LENGTHS = _kept_lengths()


def length_codes(lengths: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Index into KEPT_LENGTHS of the largest kept length that is not above the length."""
    return (np.searchsorted(KEPT_LENGTHS, lengths, side="right") - 1).astype(np.uint8)


def frequency_factors(mean_length: float, k1: float, b: float) -> Float32:
    """1 / (k1 (1 - b + b × length / mean length)) for each of the 256 kept lengths."""
    one, k1_, b_ = np.float32(1), np.float32(k1), np.float32(b)
    lengths = KEPT_LENGTHS.astype(np.float32)
    return np.asarray(one / (k1_ * ((one - b_) + b_ * lengths / np.float32(mean_length))), dtype=np.float32)


def term_weight(num_documents: int, document_frequency: int, count: int) -> np.float32:
    """w of a term that the query has `count` times; `num_documents` have at least one word."""
    idf = math.log(1 + (num_documents - document_frequency + 0.5) / (document_frequency + 0.5))
    return np.float32(count) * np.float32(idf)
