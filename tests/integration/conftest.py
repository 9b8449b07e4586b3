"""Fixtures that several files of integration tests share."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from envs.search.retriever import IndexRetriever
from tests.integration.search_service import TEXTS
from tests.unit.search_suite import small_retriever


@pytest.fixture(scope="session")
def town_retriever(tmp_path_factory: pytest.TempPathFactory) -> IndexRetriever:
    """A real index over 40 passages about towns."""
    return small_retriever(tmp_path_factory.mktemp("corpus") / "c", TEXTS)


@pytest.fixture(scope="module")
def no_garbage_of_others() -> Iterator[None]:
    """DeepSpeed collects garbage several times an engine: a quarter of a second each, with all imports."""
    from learner.engine import join_ranks  # most files of this folder need no DeepSpeed

    join_ranks()
    gc.freeze()
    yield
    gc.unfreeze()
