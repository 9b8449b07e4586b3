"""Search by meaning: texts and queries as vectors of all-MiniLM-L6-v2, compared with all of them.

Owns: `DenseIndex`. Called by the environments that search; needs the extra `dense`. Must not know: products, passages,
who asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from envs.retrieval.array_folder import Array, ArrayFolder, open_arrays
from envs.retrieval.encoder import DIMENSIONS, extra_package, load_encoder

KIND = "t2po dense index, all-MiniLM-L6-v2, format 1"
_CHUNK = 4096


class DenseIndex:
    """Vectors of documents 0..n-1, stored with 16 bits a number. Threads may share one."""

    def __init__(self, facts: dict[str, Any], arrays: dict[str, Array]) -> None:
        self.num_documents: int = facts["num_documents"]
        self._vectors = arrays["vectors"]

    @classmethod
    def build(
        cls, texts: Iterable[str], folder: Path | None = None, progress: Callable[[int], None] = lambda _: None
    ) -> DenseIndex:
        """Encode texts, numbered in the order given; in memory, or in `folder`, which then replaces an older one.

        `progress` is called with the number of documents encoded. Raises DataError, also when the extra is missing.
        """
        encoder = load_encoder()
        extra_package("faiss")  # better now than after an hour of encoding
        store = ArrayFolder(folder)
        try:
            chunks = []
            remaining = iter(texts)
            num_documents = 0
            while chunk := list(islice(remaining, _CHUNK)):
                vectors = np.empty((len(chunk), DIMENSIONS), dtype=np.float16)
                num_encoded = 0
                for places, batch in encoder.encode(chunk):
                    vectors[places] = batch
                    num_encoded += len(places)
                    progress(num_documents + num_encoded)
                chunks.append(store.set_aside(vectors))
                num_documents += len(chunk)
            stored = store.new("vectors", (num_documents, DIMENSIONS), np.float16)
            at = 0
            for vectors in chunks:
                stored[at : at + len(vectors)] = vectors
                at += len(vectors)
            return cls(*store.finish(KIND, {"num_documents": num_documents}))
        except BaseException:
            store.discard()
            raise

    @classmethod
    def open(cls, folder: Path) -> DenseIndex:
        """The index that `build` left in a folder. Raises DataError when it is not whole or the extra is missing."""
        index = cls(*open_arrays(folder, KIND))
        load_encoder()  # better now than at the first search
        extra_package("faiss")
        return index

    def search(self, query: str, k: int) -> list[tuple[int, float]]:
        """The `k` nearest documents (number, cosine in -1..1), best first; equal ones by number."""
        return self.search_many([query], k)[0]

    def search_many(self, queries: Sequence[str], k: int) -> list[list[tuple[int, float]]]:
        """`search` for many queries; quicker than one after the other."""
        k = min(k, self.num_documents)
        if k <= 0 or not queries:
            return [[] for _ in queries]
        vectors = np.empty((len(queries), DIMENSIONS), dtype=np.float32)
        for places, batch in load_encoder().encode(queries):
            vectors[places] = batch
        scores, numbers = self._flat.search(vectors, k)
        return [
            sorted(zip(found, values, strict=True), key=lambda hit: (-hit[1], hit[0]))
            for found, values in zip(numbers.tolist(), scores.tolist(), strict=True)
        ]

    @cached_property
    def _flat(self) -> Any:
        """All vectors with 32 bits a number, as faiss compares them; made at the first search."""
        flat = extra_package("faiss").IndexFlatIP(DIMENSIONS)
        for begin in range(0, self.num_documents, _CHUNK):
            flat.add(self._vectors[begin : begin + _CHUNK].astype(np.float32))
        return flat
