"""The official WebShop data: read, checked, made ready to play.

Owns: `fetch_webshop` (the work of `t2po data get webshop --from PATH`), `prepare`, `prepared_catalogue` and where
prepared data lies. Called by the CLI, `tasks` and `trace`. Must not know: how a shop is played.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from envs.data_folder import DataError, data_folder
from envs.file_mark import FileMark, mark_file
from envs.webshop.catalogue import KIND, Catalogue, Progress
from envs.webshop.goals import OFFICIAL_SEED
from envs.webshop.nouns import Tagger, add_nouns, load_tagger
from envs.webshop.official_files import SourceFiles, find_files
from envs.webshop.raw_records import Skipped, read_records

SMALL_PRODUCTS, FULL_PRODUCTS = 1_000, 1_181_436
SMALL_GOALS = 6_910
"""Synthetic goals of the small set, with the official seed as with any other."""


@dataclass(slots=True)
class FetchReport:
    """What was stored, and where."""

    source: Path
    folder: Path
    num_products: int = 0
    num_synthetic: int = 0
    num_human: int = 0
    skipped: Skipped = field(default_factory=Skipped)

    def lines(self) -> list[str]:
        """The report in words."""
        official = {SMALL_PRODUCTS: "the official small set", FULL_PRODUCTS: "the official full set"}
        own = f"neither official set ({SMALL_PRODUCTS:,} or {FULL_PRODUCTS:,}); stored as it is"
        human = f"{self.num_human:,}" if self.num_human else "none (items_human_ins.json is not in this source)"
        return [
            f"products: {self.num_products:,}, {official.get(self.num_products, own)}",
            f"synthetic goals: {self.num_synthetic:,}",
            f"human goals: {human}",
            *self.skipped.lines(),
            f"stored in {self.folder}",
        ]


def catalogue_folder(folder: Path, full: bool) -> Path:
    """Where a fetched set lies: the full one by itself, any other as the small one."""
    return folder / "webshop" / ("official-full" if full else "official")


def fetch_webshop(
    source: Path,
    folder: Path | None = None,
    progress: Progress = lambda text: None,
    make_tagger: Callable[[], Tagger] = load_tagger,
) -> FetchReport:
    """Read the official files that `source` names (`official_files`), and store a catalogue that is ready to play in
    `folder` (default: T2PO_DATA). Nothing is stored unless all went well. Raises DataError."""
    folder = folder or data_folder()
    part = folder / "webshop" / f".official.{os.getpid()}.part"
    try:
        report = prepare(find_files(source), part, progress, make_tagger)
        report.source = source
        report.folder = catalogue_folder(folder, report.num_products == FULL_PRODUCTS)
        _move(part, report.folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return report


def prepare(
    files: SourceFiles, folder: Path, progress: Progress, make_tagger: Callable[[], Tagger] = load_tagger
) -> FetchReport:
    """A catalogue in `folder` from source files: products with their nouns, search index, the official goals."""
    report = FetchReport(files.products, folder)
    tagger = make_tagger()
    progress(f"reading {', '.join(path.name for path in files.paths())}")
    records = read_records(
        files.read_products(), files.read_attributes(), files.read_human(), str(files.products), report.skipped
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        facts = {"source": files.content_hash()}
        catalogue = Catalogue.build(add_nouns(records, tagger), folder, facts, progress)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written ({error}): free space, or set T2PO_DATA to another folder"
        ) from error
    report.num_products = len(catalogue)
    report.num_synthetic = len(catalogue.goal_table(False, OFFICIAL_SEED))
    report.num_human = len(catalogue.goal_table(True, OFFICIAL_SEED))
    if report.num_products == SMALL_PRODUCTS and report.num_synthetic != SMALL_GOALS:
        raise DataError(
            f"{files.products}: {SMALL_PRODUCTS:,} products with {report.num_synthetic:,} synthetic goals; those of "
            f"the official small set have {SMALL_GOALS:,}: files of two sets are mixed up, or damaged; fetch them again"
        )
    return report


def prepared_catalogue(
    data: Path, progress: Progress = lambda text: None, make_tagger: Callable[[], Tagger] = load_tagger
) -> Catalogue:
    """The catalogue of official files (anything that `fetch_webshop` takes), or of a folder that it has stored.

    Files are prepared once; what came of it lies in T2PO_DATA, or in the temporary folder where that cannot be
    written, under the hash of their content.
    """
    if (data / "products").is_dir():
        return _opened(mark_file(data.resolve() / "products"))
    files = find_files(data)
    name = Path("webshop") / f"{KIND}-{files.content_hash()}"
    places = [data_folder() / name, Path(tempfile.gettempdir()) / f"t2po-{os.getuid()}" / name]
    for place in places:
        if (place / "products").is_dir():
            with suppress(DataError):  # damaged, or of another version: it is prepared again
                return _opened(mark_file(place / "products"))
    place = next((place for place in places if _can_write(place.parent)), places[0])
    part = place.with_name(f".{place.name}.{os.getpid()}.part")
    try:
        prepare(files, part, progress, make_tagger)
        _move(part, place)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return _opened(mark_file(place / "products"))


@lru_cache(maxsize=8)
def _opened(products: FileMark) -> Catalogue:
    """One catalogue a process, for as long as its folder stays the same."""
    try:
        return Catalogue.open(products.path.parent)
    except DataError as error:
        raise DataError(f"{error} with `t2po data get webshop --from PATH`") from error


def stored_products(folder: Path, full: bool) -> Path:
    """The products of a set that was fetched into the data folder. Raises DataError when it was not."""
    place = catalogue_folder(folder, full)
    if not (place / "products").is_dir():
        raise DataError(f"{place} is missing: fetch the official products with `t2po data get webshop --from PATH`")
    return place / "products"


def stored_catalogue(folder: Path, full: bool) -> Catalogue:
    """A set that was fetched into the data folder. Raises DataError when it was not."""
    return _opened(mark_file(stored_products(folder, full)))


def _can_write(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _move(part: Path, folder: Path) -> None:
    """Rename `part` to `folder`. An older folder steps aside first: who has it mapped keeps it."""
    old = part.with_suffix(".old")
    try:
        if folder.exists():
            folder.rename(old)
        part.rename(folder)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error}): set T2PO_DATA to another folder") from error
    finally:
        shutil.rmtree(old, ignore_errors=True)
