"""The catalogue of a shop: products, what a search finds, the goals. One in a process serves all its environments.

Owns: `Catalogue`, in memory or as a folder that processes share by mapping it. Called by `engine`, `tasks`, `official`
and the embedded suite. Must not know: pages, rewards, official files.

Products lie packed in one run of bytes and are unpacked when they are looked at; what goals are drawn from lies in
columns. So a catalogue of a million products opens at once.
"""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np

from envs.data_folder import DataError
from envs.retrieval.array_folder import Array, ArrayFolder, open_arrays
from envs.retrieval.bm25 import Bm25Index
from envs.webshop.goals import Goal, GoalTable, draw_goals, make_goal
from envs.webshop.product import Product

SEARCH_LIMIT = 50
KIND = "t2po-webshop-1"
"""Format of a stored catalogue; also part of the name of prepared data."""
_GOALS_KIND = "t2po-webshop-goals-1"
_PRODUCTS_KEPT = 4096
_QUERIES_KEPT = 2048
_LONG_QUERY = 1000
_STORED_GOALS = 100_000  # fewer are drawn faster than they are found on disk
_PROGRESS_EVERY = 10_000
_COPY_BYTES = 1 << 24

_packer = msgspec.msgpack.Encoder()
_unpacker = msgspec.msgpack.Decoder(Product)
Progress = Callable[[str], None]


def _say_nothing(_: str) -> None:
    """Progress that nobody wants to see."""


class Catalogue:
    """Read-only; threads may share it. Products are numbered from 0 in the order of their file."""

    def __init__(
        self, facts: Mapping[str, Any], arrays: Mapping[str, Array], index: Bm25Index, folder: Path | None = None
    ) -> None:
        self.facts = facts
        self._packed = arrays["packed"]
        self._ends = arrays["ends"]
        self._ranges = arrays["ranges"]
        self._counts = arrays["counts"]
        self._index = index
        self._folder = folder
        # caches of this object, not of the class: they go when it goes
        self.product = lru_cache(maxsize=_PRODUCTS_KEPT)(self._unpack)
        self.goal_table = lru_cache(maxsize=4)(self._goal_table)
        self._search_short = lru_cache(maxsize=_QUERIES_KEPT)(self._search)

    @classmethod
    def build(
        cls,
        products: Iterable[Product],
        folder: Path | None = None,
        facts: Mapping[str, Any] | None = None,
        progress: Progress = _say_nothing,
    ) -> Catalogue:
        """A catalogue in memory, or in `folder`, over an older one. Raises DataError without products, for one asin
        twice, and for a folder that cannot be written."""
        store = ArrayFolder(folder / "products" if folder else None)
        try:
            asins = _store_products(products, store, folder, progress)
            if not asins:
                raise DataError("the catalogue is empty: there is nothing to buy; fetch the products again")
            stored_facts, arrays = store.finish(KIND, {**(facts or {}), "num_products": len(asins)})
        except BaseException:
            store.discard()
            raise
        texts = (product.searched_text for product in _unpack_all(arrays))
        index = Bm25Index.build(
            texts,
            asins,
            folder / "index" if folder else None,
            lambda count: progress(f"search index: {count} of {len(asins)} products"),
        )
        return cls(stored_facts, arrays, index, folder)

    @classmethod
    def open(cls, folder: Path) -> Catalogue:
        """The catalogue that `build` left in a folder. Raises DataError when it is not whole."""
        facts, arrays = open_arrays(folder / "products", KIND)
        return cls(facts, arrays, Bm25Index.open(folder / "index"), folder)

    def __len__(self) -> int:
        return len(self._ends)

    def _unpack(self, number: int) -> Product:
        begin = int(self._ends[number - 1]) if number else 0
        return _unpacker.decode(self._packed[begin : int(self._ends[number])].tobytes())

    def search(self, query: str) -> tuple[int, ...]:
        """Numbers of at most 50 products, best first. Special words of the original's are words like others."""
        return self._search_short(query) if len(query) < _LONG_QUERY else self._search(query)

    def _search(self, query: str) -> tuple[int, ...]:
        return tuple(number for number, _ in self._index.search(query, SEARCH_LIMIT))

    def _goal_table(self, human: bool, seed: int) -> GoalTable:
        """All goals of a seed: those that people wrote, or the synthetic ones."""
        folder = self._folder / f"goals-{'human' if human else 'synthetic'}-{seed}" if self._folder else None
        if folder and folder.is_dir():
            with suppress(DataError):  # damaged: it is drawn again
                return GoalTable(**open_arrays(folder, _GOALS_KIND)[1])
        table = draw_goals(self._ranges, self._counts, human, seed)
        if folder and len(table) >= _STORED_GOALS:
            with suppress(DataError):  # a folder that cannot be written: the goals stay in memory
                store = ArrayFolder(folder)
                for name in ("products", "variants", "bounds", "prices"):
                    store.add(name, getattr(table, name))
                return GoalTable(**store.finish(_GOALS_KIND, {})[1])
        return table

    def goal(self, human: bool, seed: int, place: int) -> Goal:
        """Goal number `place` of the official order of a seed. Raises DataError when there is none."""
        table = self.goal_table(human, seed)
        if not 0 <= place < len(table):
            kind = "human" if human else "synthetic"
            raise DataError(f"goal {place} of {len(table)} {kind} goals: number them from 0, or fetch the human file")
        return make_goal(
            self.product(int(table.products[place])), int(table.variants[place]), int(table.bounds[place]), human
        )


def _store_products(
    products: Iterable[Product], store: ArrayFolder, folder: Path | None, progress: Progress
) -> list[str]:
    """Write packed [bytes], ends [N], ranges [N, 2] (dollars; NaN: one price) and counts [N, 2]; the asins in order."""
    asins: dict[str, None] = {}
    ends, ranges, counts = array("q"), array("d"), array("q")
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    spool: IO[bytes]
    with tempfile.TemporaryFile(dir=folder) if folder else BytesIO() as spool:
        for number, product in enumerate(products, 1):
            if product.asin in asins:
                raise DataError(f"product {number}: asin {product.asin} occurs twice; give every product its own")
            if product.num_variants > np.iinfo(np.int32).max:
                raise DataError(
                    f"product {number} ({product.asin}): {product.num_variants} goals; its options are damaged"
                )
            asins[product.asin] = None
            spool.write(_pack(product, number))
            ends.append(spool.tell())
            ranges.extend((*product.prices, float("nan"))[:2])
            counts.extend((product.num_variants, len(product.human)))
            if number % _PROGRESS_EVERY == 0:
                progress(f"products: {number}")
        packed = store.new("packed", spool.tell(), np.uint8)
        spool.seek(0)
        at = 0
        while block := spool.read(_COPY_BYTES):
            packed[at : at + len(block)] = np.frombuffer(block, dtype=np.uint8)
            at += len(block)
    store.add("ends", np.array(ends, dtype=np.int64))
    store.add("ranges", np.array(ranges, dtype=np.float64).reshape(-1, 2))
    store.add("counts", np.array(counts, dtype=np.int32).reshape(-1, 2))
    return list(asins)


def _pack(product: Product, number: int) -> bytes:
    try:
        return _packer.encode(product)
    except UnicodeEncodeError as error:
        raise DataError(f"product {number} ({product.asin}): a text that is no Unicode ({error})") from error


def _unpack_all(arrays: Mapping[str, Array]) -> Iterator[Product]:
    begin = 0
    for end in arrays["ends"].tolist():
        yield _unpacker.decode(arrays["packed"][begin:end].tobytes())
        begin = end
