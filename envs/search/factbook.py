"""The Factbook suite on disk: made once from installed packages, the same bytes on every machine.

Owns: `factbook_folder`, which makes the suite at first use, and what the suite's hashes must be. Called by `panels` and
`retriever`. Must not know: how questions are played.

`python -m envs.search.factbook [FOLDER]` makes it and says what is in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from envs.data_folder import DataError, data_folder
from envs.search.corpus import Corpus, move_folder, write_corpus
from envs.search.factbook_panels import make_panels
from envs.search.factbook_passages import element_passages, place_passages
from envs.search.factbook_source import read_elements, read_places
from envs.search.one_maker import one_maker
from envs.search.question import Question, question_row

PANELS = ("train", "seen", "unseen")
CORPUS_HASH = "2d4577b890d297401f5f4fbc7ba5e0cd"
QUESTIONS_HASH = "ffab85839e5db73da0318e363cdc9946"
"""What the suite's content hashes to. A folder that is named by them never holds another suite."""
_LOCK_S = 120.0
"""How long to wait for another process that makes the suite: ten times what it takes."""


def factbook_folder(data_dir: Path | None = None) -> Path:
    """The folder of the suite, made if it is not there: `corpus/` and one PANEL.jsonl a panel. Takes seconds.

    Raises DataError when a package is missing or has another version, or the folder cannot be written.
    """
    folder = (data_dir or data_folder()) / "search" / f"factbook-{CORPUS_HASH[:8]}-{QUESTIONS_HASH[:8]}"
    if not folder.is_dir():
        with _one_maker(folder):
            if not folder.is_dir():
                _make(folder)
    return folder


@contextlib.contextmanager
def _one_maker(folder: Path) -> Iterator[None]:
    """One process at a time makes the suite; the others wait for it."""
    lock = folder.with_name(f".{folder.name}.lock")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with one_maker(lock, _LOCK_S, f"{lock}: another process has been making the suite"):
            yield
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written ({error}): free space, or set T2PO_DATA to another folder"
        ) from error


def _make(folder: Path) -> None:
    places, elements = read_places(), read_elements()
    texts = [*place_passages(places), *element_passages(elements)]
    panels = make_panels(places, elements)
    lines = {name: "".join(question_row(question) + "\n" for question in panels[name]) for name in PANELS}
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        corpus = write_corpus(part / "corpus", ((str(number), text) for number, text in enumerate(texts)))
        found = corpus.hash, questions_hash(panels)
        if found != (CORPUS_HASH, QUESTIONS_HASH):
            raise DataError(
                f"the Factbook suite came out as {found}, not as {(CORPUS_HASH, QUESTIONS_HASH)}: the installed "
                "packages are damaged (make setup), or the code that makes it was changed (then so are its hashes)"
            )
        for name, text in lines.items():
            (part / f"{name}.jsonl").write_text(text, encoding="utf-8")
        move_folder(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def questions_hash(panels: dict[str, list[Question]]) -> str:
    """Hash of all questions with their plans, panel by panel."""
    whole = hashlib.blake2b(digest_size=16)
    for name in PANELS:
        whole.update(f"{name}\n".encode())
        for question in panels[name]:
            whole.update(f"{question_row(question)}\n".encode())
    return whole.hexdigest()


def main() -> None:
    """Make the suite and describe it."""
    started = time.monotonic()
    folder = factbook_folder(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    corpus = Corpus.open(folder / "corpus")
    words = sum(len(text.split()) for text in corpus.contents())
    print(f"{folder}: {len(corpus)} passages of {words / len(corpus):.1f} words, hash {corpus.hash}")
    from envs.search.panels import panel_questions

    for name in PANELS:
        kinds = Counter(question.data_source for question in panel_questions(name, folder.parent.parent))
        print(f"{name}: {sum(kinds.values())} questions: {', '.join(f'{k} {n}' for k, n in sorted(kinds.items()))}")
    print(f"ready in {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main()
