"""Nouns of titles, by spaCy's small model where it is installed."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from envs.data_folder import DataError
from envs.webshop import nouns
from envs.webshop.nouns import add_nouns, load_tagger
from tests.unit.webshop_records import lamps, products_of, record, tag_words

TITLES = [
    "Orlin Folding Desk Lamp with Clamp and Clamp, Oak",
    "2 Pack Soft Cotton Towels for Bath & Kitchen",
    "",
    "   ",
    "\u65e5\u672c 3.5mm Cable \U0001f600",
] * 3


def test_nouns_are_lower_case_and_repeat() -> None:
    pytest.importorskip("spacy")
    first, *_ = load_tagger()(TITLES)
    assert list(first).count("clamp") == 2 and "desk" in first and "with" not in first


def test_the_parts_left_out_change_nothing() -> None:
    pytest.importorskip("spacy")
    found = [name for name in nouns.MODELS if importlib.util.find_spec(name)]
    whole: Any = importlib.import_module(found[0]).load()
    expected = [[word.text.lower() for word in whole(title) if word.pos_ in ("NOUN", "PROPN")] for title in TITLES]
    assert [list(each) for each in load_tagger()(TITLES)] == expected


def test_products_get_their_own_nouns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nouns, "_BATCH", 2)
    products = products_of([*lamps(4), record("B0A", "")])
    found = list(add_nouns(products, tag_words))
    assert [product.asin for product in found] == [product.asin for product in products]
    assert [product.nouns for product in found][2:] == [("lamp", "2"), ("lamp", "3"), ()]


def test_a_missing_model_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nouns, "MODELS", ("no_such_model",))
    with pytest.raises(DataError, match="en_core_web_sm"):
        load_tagger()
