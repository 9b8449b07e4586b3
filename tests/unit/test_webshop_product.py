"""Products: prices, options and texts are read as the original reads them, and what it cannot read is named."""

from __future__ import annotations

from typing import Any

import pytest

from envs.data_folder import DataError
from envs.webshop.product import Product, read_prices, read_product
from envs.webshop.raw_records import Skipped, read_records
from tests.unit.webshop_records import options, record, wanted


def read(fields: dict[str, Any], attributes: dict[str, Any] | None = None, human: Any = ()) -> Product:
    return read_product({**record("B0A"), **fields}, attributes or {}, human=human)


@pytest.mark.parametrize(
    ("pricing", "prices", "text"),
    [
        ("", (100.0,), "$100.0"),
        (None, (100.0,), "$100.0"),
        ("$28.80", (28.8,), "$28.8"),
        ("$1,234.50", (1234.5,), "$1234.5"),
        ("US $7 each", (7.0,), "$7.0"),
        ("$19.99 - $27.99", (19.99, 27.99), "$19.99 to $27.99"),
        ("$1 $2 $3", (1.0, 2.0), "$1.0 to $2.0"),
    ],
)
def test_prices_of_all_forms(pricing: str | None, prices: tuple[float, ...], text: str) -> None:
    assert read_prices(pricing) == prices
    assert read({"pricing": pricing}).price_text == text


@pytest.mark.parametrize("pricing", ["free", "$", "$1.2.3", "$5 - $", 12.5, ["$5"]])
def test_a_price_without_a_number_is_named(pricing: Any) -> None:
    with pytest.raises(DataError, match="pricing"):
        read_prices(pricing)


def test_options_are_lower_case_and_keep_their_order() -> None:
    product = read({"customization_options": options(Size=[" Large/Wide ", "SMALL"], Color=["Red", "Red"])})
    assert product.options == {"size": ("large | wide", "small"), "color": ("red", "red")}
    assert list(product.options) == ["size", "color"]


def test_of_two_options_of_one_name_the_later_has_the_values_and_the_earlier_the_place() -> None:
    product = read({"customization_options": options(Size=["a"], Color=["b"], SIZE=["c"])})
    assert list(product.options.items()) == [("size", ("c",)), ("color", ("b",))]


@pytest.mark.parametrize("customization", ["", None, {}, {"Color": None}])
def test_without_options(customization: Any) -> None:
    assert read({"customization_options": customization}).options == {}


def test_an_option_without_values_leaves_no_goal() -> None:
    product = read({"customization_options": options(Color=[], Size=["a", "b"])}, wanted())
    assert product.options["color"] == () and product.num_variants == 0


def test_texts_of_a_product() -> None:
    product = read({"small_description": "one text", "query": " Desk LAMPS ", "category": " Garden "})
    assert product.bullets == ("one text",) and product.query == "desk lamps" and product.category == " Garden "
    assert product.attributes == ("DUMMY_ATTR",) and product.num_variants == -1


def test_what_the_search_reads() -> None:
    product = read(
        {
            "name": "Desk LAMP",
            "full_description": "Bright.",
            "small_description": ["First", "Second"],
            "customization_options": options(Color=["Red", "Blue"], Size=["XL"]),
        }
    )
    assert product.searched_text == "desk lamp bright. first color: red, blue, and size: xl"
    assert read({"small_description": [], "full_description": ""}).searched_text == "plain lamp   "


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"name": None}, "name is None"),
        ({"full_description": 3}, "full_description is 3"),
        ({"small_description": [1]}, "small_description"),
        ({"small_description": None}, "small_description"),
        ({"customization_options": ["red"]}, "customization_options"),
        ({"customization_options": {"Color": ["red"]}}, "'Color'"),
        ({"customization_options": {"Color": [{"name": "red"}]}}, "value is missing"),
    ],
)
def test_damaged_fields_are_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(DataError, match=named):
        read(fields)


def test_an_instruction_needs_attributes() -> None:
    with pytest.raises(DataError, match="without instruction_attributes"):
        read({}, {"attributes": [], "instruction": "Find me lamps", "instruction_attributes": []})


def test_human_goals_without_attributes_are_left_out() -> None:
    rows = [
        {"instruction": "a lamp.", "instruction_attributes": ["bright"], "instruction_options": ["red"]},
        {"instruction": "anything", "instruction_attributes": [], "instruction_options": []},
        {"instruction": "a lamp", "instruction_attributes": ["bright"], "instruction_options": {"color": "red"}},
    ]
    assert [goal.options for goal in read({}, human=rows).human] == [("red",), (("color", "red"),)]
    with pytest.raises(DataError, match="instruction_options"):
        read({}, human=[{**rows[0], "instruction_options": None}])


def test_which_records_are_left_out() -> None:
    records = [record("B0A", "first"), record("nan"), record("B0A", "second"), record("ABCDEFGHIJK"), record("B0B")]
    skipped = Skipped()
    found = list(read_records(records, {"B0A": {}, "B0B": {}}, skipped=skipped))
    assert [(product.asin, product.title) for product in found] == [("B0A", "first"), ("B0B", "Plain Lamp")]
    assert (skipped.repeats, skipped.unlisted) == (1, 2) and len(skipped.lines()) == 2


@pytest.mark.parametrize(
    ("records", "attributes", "named"),
    [
        ([record("B0A"), "B0B"], {"B0A": {}}, "shop.json, record 2: no text asin"),
        ([{"B0A": {"attributes": []}}], {}, "record 1: no text asin"),
        ([record("B0A")], {"B0B": {}}, r"record 1 \(B0A\).*do not belong together"),
        ([record("B0A")], {"B0A": ["bright"]}, "do not belong together"),
        ([record("B0A"), record("B0B", pricing="free")], {"B0A": {}, "B0B": {}}, r"record 2 \(B0B\): pricing"),
    ],
)
def test_damaged_records_are_named(records: list[Any], attributes: dict[str, Any], named: str) -> None:
    with pytest.raises(DataError, match=named):
        list(read_records(records, attributes, origin="shop.json"))
