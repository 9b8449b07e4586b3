"""WebShop's published files: which belong together, and reading them.

Owns: `find_files`, `SourceFiles`. Called by `official`. Must not know: products, storage, panels.
"""

from __future__ import annotations

import hashlib
import json
import lzma
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from envs.data_folder import DataError
from envs.webshop.json_stream import open_text, read_members

PAIRS = {
    "items_shuffle_1000.json": "items_ins_v2_1000.json",
    "items_shuffle.json": "items_ins_v2.json",
}
HUMAN_FILE = "items_human_ins.json"
_HASH_BYTES = 1 << 24


@dataclass(frozen=True)
class SourceFiles:
    """A product file and the attribute file that belongs to it; or one file with all (`attributes` null)."""

    products: Path
    attributes: Path | None
    human: Path | None

    def paths(self) -> list[Path]:
        return [path for path in (self.products, self.attributes, self.human) if path]

    def content_hash(self) -> str:
        """Hash of what is in the files; names and folders play no part."""
        whole = hashlib.blake2b(digest_size=16)
        try:
            for path in self.paths():
                part = hashlib.blake2b(digest_size=16)
                with path.open("rb") as stream:
                    while block := stream.read(_HASH_BYTES):
                        part.update(block)
                whole.update(part.digest())
        except OSError as error:
            raise DataError(f"{path}: {error}: fetch it again") from error
        return whole.hexdigest()

    def read_products(self) -> Iterator[Any]:
        if self.attributes is None:
            yield from self._both["products"]
        else:
            for _, record in read_members(self.products, "["):
                yield record

    def read_attributes(self) -> AttributeRecords:
        if self.attributes is None:
            return AttributeRecords(self._both["attributes"].items())
        return AttributeRecords(read_members(self.attributes, "{"))

    def read_human(self) -> dict[str, Any]:
        """Asin -> list of instructions; empty where there are none."""
        if self.attributes is None:
            return dict(self._both.get("human", {}))
        if self.human is None:
            return {}
        return dict(read_members(self.human, "{"))

    @cached_property
    def _both(self) -> dict[str, Any]:
        try:
            with open_text(self.products) as stream:
                members = json.load(stream)
        except (OSError, EOFError, lzma.LZMAError, ValueError, RecursionError) as error:
            what = "cut short" if isinstance(error, EOFError) else str(error)
            raise DataError(f"{self.products}: {what}: the file is damaged, fetch it again") from error
        for name, kind in (("products", list), ("attributes", dict), ("human", dict)):
            found = members.get(name, {} if name == "human" else None) if isinstance(members, dict) else None
            if not isinstance(found, kind):
                raise DataError(
                    f'{self.products}: no {name}: write {{"products": [...], "attributes": {{...}}}}, if you like with '
                    '"human": {...}, or name the folder of the official files'
                )
        return members


class AttributeRecords(Mapping[str, Any]):
    """Asin -> record, each kept as JSON text: a million of them as objects would take gigabytes."""

    def __init__(self, members: Iterable[tuple[str, Any]]) -> None:
        self._texts = {asin: json.dumps(record).encode() for asin, record in members}

    def __getitem__(self, asin: str) -> Any:
        return json.loads(self._texts[asin])

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)


def find_files(source: Path) -> SourceFiles:
    """The files that `source` names: a folder with an official pair, the product file of a pair, or one file with
    products and attributes. Raises DataError."""
    if source.is_dir():
        found = [name for name in PAIRS if (source / name).is_file()]
        if not found:
            raise DataError(f"{source} holds none of {', '.join(PAIRS)}: name the folder of the official files")
        if len(found) > 1:
            raise DataError(f"{source} holds {' and '.join(found)}: name the one that is wanted")
        source = source / found[0]
    if not source.is_file():
        raise DataError(f"{source} does not exist: name the folder of the official files, or one .json or .json.xz")
    if source.name in PAIRS:
        attributes = source.with_name(PAIRS[source.name])
        if not attributes.is_file():
            raise DataError(f"{attributes} is missing: it belongs to {source.name}; fetch both")
        human = source.with_name(HUMAN_FILE)
        return SourceFiles(source, attributes, human if human.is_file() else None)
    if source.suffix not in (".json", ".xz"):
        raise DataError(f"{source}: name a folder (unpack the archive first), a .json or a .json.xz file")
    return SourceFiles(source, None, None)
