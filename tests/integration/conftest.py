"""Fixtures that several files of integration tests share."""

from __future__ import annotations

import pytest

from envs.search.retriever import IndexRetriever
from tests.integration.search_service import TEXTS
from tests.unit.search_suite import small_retriever


@pytest.fixture(scope="session")
def town_retriever(tmp_path_factory: pytest.TempPathFactory) -> IndexRetriever:
    """A real index over 40 passages about towns."""
    return small_retriever(tmp_path_factory.mktemp("corpus") / "c", TEXTS)
