"""The Factbook suite for the tests, made once a process outside the user's data folder."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from envs.records import Task
from envs.retrieval.bm25 import Bm25Index
from envs.search.corpus import write_corpus
from envs.search.factbook import factbook_folder
from envs.search.panels import panel_rows
from envs.search.retriever import IndexRetriever


@cache
def suite_data() -> Path:
    """A data folder with the suite in it."""
    folder = Path(tempfile.mkdtemp(prefix="t2po-search-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    factbook_folder(folder)
    return folder


def suite_task(panel: str, index: int, data: Path | None = None) -> Task:
    name, kind, _ = panel_rows(panel, data or suite_data())[index]
    return Task(env="search", panel=panel, index=index, id=name, kind=kind)


def small_retriever(folder: Path, texts: Sequence[str]) -> IndexRetriever:
    """A real corpus and index over a few passages."""
    corpus = write_corpus(folder, ((str(number), text) for number, text in enumerate(texts)))
    return IndexRetriever(corpus, Bm25Index.build(corpus.contents()), "bm25")
