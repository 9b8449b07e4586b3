"""The catalogue: the same in memory and in a folder, shared, and never half there."""

from __future__ import annotations

import gc
import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest

from envs.data_folder import DataError
from envs.webshop import catalogue as catalogue_module
from envs.webshop.catalogue import Catalogue
from envs.webshop.goals import GoalTable
from tests.unit.webshop_records import lamps, odd_records, options, products_of, record, shop_of, wanted

ODD = odd_records()


def test_a_folder_and_memory_hold_the_same(tmp_path: Path) -> None:
    products = products_of(ODD["products"], ODD["attributes"], ODD["human"])
    in_memory = Catalogue.build(products)
    Catalogue.build(products, tmp_path / "shop")
    opened = Catalogue.open(tmp_path / "shop")
    assert len(opened) == len(in_memory) == len(products) == 29
    for number, product in enumerate(products):
        assert opened.product(number) == in_memory.product(number) == product
    for query in ("lamp", "desk lamp titanium", "l\u00e4mp", "nothing of the kind"):
        assert opened.search(query) == in_memory.search(query)
    for human in (False, True):
        goals = [opened.goal(human, 233, place) for place in range(len(opened.goal_table(human, 233)))]
        assert goals == [in_memory.goal(human, 233, place) for place in range(len(goals))]


def test_products_are_unpacked_once() -> None:
    shop = shop_of(lamps(3))
    assert shop.product(1) is shop.product(1)


def test_a_search_finds_fifty_products() -> None:
    shop = shop_of(lamps(60))
    assert len(shop.search("lamp")) == 50 and shop.search("") == ()
    long_query = "lamp 7 " * 400
    assert shop.search(long_query)[0] == 7


def test_a_catalogue_goes_when_nobody_needs_it() -> None:
    shop = shop_of(lamps(3))
    shop.product(0), shop.search("lamp"), shop.goal_table(False, 1)
    reference = weakref.ref(shop)
    del shop
    gc.collect()
    assert reference() is None


def test_without_products_there_is_no_shop(tmp_path: Path) -> None:
    for folder in (None, tmp_path / "shop"):
        with pytest.raises(DataError, match="empty"):
            Catalogue.build([], folder)
    assert not list(tmp_path.glob("**/*.npy"))


def test_one_asin_twice_is_named() -> None:
    products = products_of(lamps(2))
    with pytest.raises(DataError, match="B0LAMP0000 occurs twice"):
        Catalogue.build([*products, products[0]])


def test_text_that_is_no_unicode_is_named() -> None:
    with pytest.raises(DataError, match=r"product 2 \(B0A\)"):
        Catalogue.build(products_of([*lamps(1), record("B0A", "broken \ud800")]))


def test_more_goals_than_can_be_are_named() -> None:
    many = options(**{f"Option {number}": [str(value) for value in range(10)] for number in range(10)})
    with pytest.raises(DataError, match="B0A.*10000000000 goals"):
        shop_of([record("B0A", customization_options=many)], {"B0A": wanted()})


@pytest.mark.parametrize(
    "name", ["products/packed.npy", "products/header.json", "index/words.npy", "index/header.json"]
)
def test_a_damaged_folder_is_named(tmp_path: Path, name: str) -> None:
    shop_of(lamps(20))
    Catalogue.build(products_of(lamps(20)), tmp_path / "shop")
    path = tmp_path / "shop" / name
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match=path.name):
        Catalogue.open(tmp_path / "shop")


def test_many_goals_are_drawn_once_and_then_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue_module, "_STORED_GOALS", 1)
    products = products_of(ODD["products"], ODD["attributes"])
    drawn = Catalogue.build(products).goal_table(False, 7)
    Catalogue.build(products, tmp_path / "shop").goal_table(False, 7)
    for damage in (False, True):
        if damage:
            (tmp_path / "shop" / "goals-synthetic-7" / "bounds.npy").write_bytes(b"")
        table = Catalogue.open(tmp_path / "shop").goal_table(False, 7)
        assert_same(table, drawn)
        assert not table.products.flags.writeable  # mapped


def test_goals_of_a_folder_that_cannot_be_written_stay_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue_module, "_STORED_GOALS", 1)
    shop = Catalogue.build(products_of(lamps(2), {"B0LAMP0000": wanted()}), tmp_path / "shop")
    shutil.rmtree(tmp_path / "shop")
    (tmp_path / "shop").write_text("in the way")
    assert len(shop.goal_table(False, 7)) == 1


def assert_same(one: GoalTable, other: GoalTable) -> None:
    for name in ("products", "variants", "bounds", "prices"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
