"""Records of the official files -> products, in file order, by WebShop's rules on what is left out.

Owns: `read_records`, `Skipped`. Called by `official` and the embedded suite. Must not know: files, spaCy, storage.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from envs.data_folder import DataError
from envs.webshop.product import Product, is_listed, read_product


@dataclass(slots=True)
class Skipped:
    """Records that WebShop leaves out without a word: those of an asin that came before, and odd asins."""

    repeats: int = 0
    unlisted: int = 0

    def lines(self) -> list[str]:
        text = [f"left out: {self.repeats} x asin that came before"] if self.repeats else []
        if self.unlisted:
            text.append(f"left out: {self.unlisted} x asin 'nan' or longer than 10 characters")
        return text


def read_records(
    records: Iterable[object],
    attributes: Mapping[str, Any],
    human: Mapping[str, Any] | None = None,
    origin: str = "products",
    skipped: Skipped | None = None,
) -> Iterator[Product]:
    """The products of a list of records, without nouns. `attributes` and `human` hold a record, a list an asin.

    `origin` names the source in errors. Raises DataError, naming the record, for what no shop can show, and for a
    product without a record of attributes: then the two files do not belong together.
    """
    skipped = skipped or Skipped()
    seen: set[str] = set()
    for number, record in enumerate(records, 1):
        place = f"{origin}, record {number}"
        if not isinstance(record, dict) or not isinstance(record.get("asin"), str):
            raise DataError(f"{place}: no text asin: this is no product file, or it is damaged; fetch it again")
        asin = record["asin"]
        if not is_listed(asin):
            skipped.unlisted += 1
            continue
        if asin in seen:
            skipped.repeats += 1
            continue
        seen.add(asin)
        attribute_record = attributes.get(asin)
        if not isinstance(attribute_record, dict):
            raise DataError(
                f"{place} ({asin}): the attribute file has no record of it: the two files do not belong together; "
                "fetch both again"
            )
        written = (human or {}).get(asin, ())
        if not isinstance(written, list | tuple):
            raise DataError(f"{place} ({asin}): its human instructions are no list: the file is damaged")
        try:
            yield read_product(record, attribute_record, human=written)
        except DataError as error:
            raise DataError(f"{place} ({asin}): {error}; the files are damaged, fetch them again") from error
