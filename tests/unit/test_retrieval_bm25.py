"""BM25: the hits of Lucene, the formula in plain arithmetic, and the same hits however they are computed or stored."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envs.data_folder import DataError
from envs.retrieval import postings, ranking
from envs.retrieval.analyzer import analyze
from envs.retrieval.bm25 import Bm25Index
from envs.retrieval.weights import KEPT_LENGTHS, length_codes

GOLDEN = json.loads((Path(__file__).parent / "data" / "lucene_golden.json").read_text(encoding="utf-8"))
IDS = [document["id"] for document in GOLDEN["documents"]]
TEXTS = [" ".join([document["text"]] * document["times"]) for document in GOLDEN["documents"]]
WORDS = ["oak", "tea", "lamp", "table", "chair", "mug", "the"]
corpora = st.lists(st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join), max_size=12)
queries = st.lists(st.sampled_from([*WORDS, "unknown"]), max_size=8).map(" ".join)


def oracle(texts: Sequence[str], query: str, k1: float = 0.9, b: float = 0.4) -> dict[int, float]:
    """Score of each document that has one, in 64-bit arithmetic, one document after the other."""
    documents = [Counter(analyze(text)) for text in texts]
    with_words = [document for document in documents if document]
    mean = sum(document.total() for document in with_words) / max(1, len(with_words))
    scores = {}
    for number, document in enumerate(documents):
        length = document.total()
        while length > 40 and (length - 24) % (1 << ((length - 24).bit_length() - 4)):  # four bits are kept
            length -= 1
        score = 0.0
        for term, count in Counter(analyze(query)).items():
            holders = sum(term in other for other in documents)
            idf = math.log(1 + (len(with_words) - holders + 0.5) / (holders + 0.5))
            frequency = document[term]
            score += count * idf * frequency / (frequency + k1 * (1 - b + b * length / mean)) if frequency else 0.0
        if score > 0:
            scores[number] = score
    return scores


@pytest.fixture(scope="module")
def golden_index() -> Bm25Index:
    return Bm25Index.build(TEXTS, IDS)


@pytest.mark.parametrize(("query", "hits"), GOLDEN["hits"], ids=range(len(GOLDEN["hits"])))
def test_hits_and_scores_are_those_of_lucene(golden_index: Bm25Index, query: str, hits: list[list[object]]) -> None:
    """The very same floats: this is what decides between documents that are nearly equal."""
    assert [[IDS[number], score] for number, score in golden_index.search(query, 50)] == hits
    assert [[IDS[number], score] for number, score in golden_index.search(query, 3)] == hits[:3]


@given(texts=corpora, query=queries, k=st.integers(1, 14))
def test_scores_are_those_of_the_formula(texts: list[str], query: str, k: int) -> None:
    expected = oracle(texts, query)
    found = Bm25Index.build(texts).search(query, k)
    assert len(found) == min(k, len(expected))
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    best = sorted(expected.values(), reverse=True)
    for (number, score), wanted in zip(found, best, strict=False):
        assert score == pytest.approx(expected[number], rel=1e-5) == pytest.approx(wanted, rel=1e-5)


@given(texts=corpora, query=queries)
def test_equal_scores_go_by_key_then_by_number(texts: list[str], query: str) -> None:
    texts = texts * 3
    keys = [f"{number * 7 % len(texts):03}" for number in range(len(texts))]
    for index, rank in ((Bm25Index.build(texts, keys), keys), (Bm25Index.build(texts), range(len(texts)))):
        found = index.search(query, len(texts))
        assert found == sorted(found, key=lambda hit: (-hit[1], rank[hit[0]]))
        assert found[: len(found) // 2] == index.search(query, len(found) // 2)  # also where the cut is in a tie


def test_keys_are_compared_by_their_bytes() -> None:
    """As Lucene does: capitals first, and a character beyond U+FFFF behind all others."""
    keys = ["b", "\U0001f600", "\uffee", "B", "a"]
    found = Bm25Index.build(["tea"] * 5, keys).search("tea", 5)
    assert [keys[number] for number, _ in found] == ["B", "a", "b", "\uffee", "\U0001f600"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1000), k=st.sampled_from([1, 3, 20]), num_seeds=st.sampled_from([1, 5, 40]))
def test_leaving_documents_out_changes_no_hit(
    monkeypatch: pytest.MonkeyPatch, seed: int, k: int, num_seeds: int
) -> None:
    rng = np.random.default_rng(seed)
    words = np.array([f"w{number}" for number in range(40)])
    shares = 1 / np.arange(1, 41)
    shares /= shares.sum()
    texts = [" ".join(rng.choice(words, rng.integers(0, 30), p=shares)) for _ in range(200)]
    index = Bm25Index.build(texts)
    monkeypatch.setattr(ranking, "_NUM_SEEDS", num_seeds)
    for _ in range(5):
        query = " ".join(rng.choice(words, rng.integers(1, 9)))
        monkeypatch.setattr(ranking, "_FEW_ROWS", 1_000_000)
        whole = index.search(query, k)
        monkeypatch.setattr(ranking, "_FEW_ROWS", 0)
        assert index.search(query, k) == whole


@given(texts=corpora, query=queries)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_size_of_a_chunk_changes_nothing(monkeypatch: pytest.MonkeyPatch, texts: list[str], query: str) -> None:
    whole = Bm25Index.build(texts).search(query, 20)
    with monkeypatch.context() as patch:
        patch.setattr(postings, "_CHUNK_TOKENS", 7)
        patch.setattr(postings, "_CHUNK_DOCUMENTS", 2)
        assert Bm25Index.build(texts).search(query, 20) == whole


@given(st.integers(0, 2**31 - 1))
def test_lengths_are_kept_with_four_bits_above_40(length: int) -> None:
    kept = int(KEPT_LENGTHS[length_codes(np.array([length]))[0]])
    if length <= 40:
        assert kept == length
    else:
        rest = length - 24
        step = 1 << (rest.bit_length() - 4)
        assert kept == 24 + rest // step * step


@pytest.mark.parametrize("query", ["", " ", "the of", "\x00\x07", "?!", "zzz", "\ud800", "'" * 100])
def test_a_query_without_known_terms_finds_nothing(golden_index: Bm25Index, query: str) -> None:
    assert golden_index.search(query, 50) == []


def test_no_hits_are_wanted(golden_index: Bm25Index) -> None:
    assert golden_index.search("oak", 0) == [] == golden_index.search("oak", -1)


def test_a_query_of_100_kilobytes(golden_index: Bm25Index) -> None:
    once = golden_index.search("oak table", 5)
    many = golden_index.search("oak table " * 10_000, 5)
    assert [number for number, _ in many] == [number for number, _ in once]
    assert [IDS[number] for number, _ in golden_index.search("".join(map(chr, range(100_000))), 5)] == ["K15"]  # ★


@pytest.mark.parametrize("texts", [[], [""], ["", "the"], ["", "tea", "the"]])
def test_empty_documents(tmp_path: Path, texts: list[str]) -> None:
    expected = oracle(texts, "tea")
    for index in (Bm25Index.build(texts), Bm25Index.build(texts, folder=tmp_path / "index")):
        assert index.num_documents == len(texts)
        assert dict(index.search("tea", 5)) == pytest.approx(expected)


def test_a_folder_gives_the_hits_of_memory(tmp_path: Path, golden_index: Bm25Index) -> None:
    counts: list[int] = []
    built = Bm25Index.build(iter(TEXTS), IDS, tmp_path / "deep" / "index", counts.append)
    assert counts[-1] == len(TEXTS)
    opened = Bm25Index.open(tmp_path / "deep" / "index")
    for query, _ in GOLDEN["hits"]:
        assert built.search(query, 50) == opened.search(query, 50) == golden_index.search(query, 50)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["index"]  # nothing is left over


def test_building_again_replaces_the_index_and_the_old_one_goes_on(tmp_path: Path) -> None:
    first = Bm25Index.build(["oak table"], folder=tmp_path / "index")
    second = Bm25Index.build(["tea mug", "lamp"], folder=tmp_path / "index")
    assert len(first.search("oak", 5)) == 1 and second.search("oak", 5) == []
    assert Bm25Index.open(tmp_path / "index").num_documents == 2


def test_the_same_texts_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        Bm25Index.build(TEXTS, IDS, tmp_path / name)
    for path in sorted((tmp_path / "one").iterdir()):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_parameters_of_the_formula(tmp_path: Path) -> None:
    texts = ["oak oak tea", "oak tea tea lamp mug", "chair"]
    expected = oracle(texts, "oak tea", k1=1.2, b=0.75)
    Bm25Index.build(texts, folder=tmp_path / "index", k1=1.2, b=0.75)
    assert dict(Bm25Index.open(tmp_path / "index").search("oak tea", 3)) == pytest.approx(expected, rel=1e-5)


def test_threads_share_an_index(golden_index: Bm25Index) -> None:
    asked = [query for query, _ in GOLDEN["hits"]] * 20
    expected = [golden_index.search(query, 50) for query in asked]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda query: golden_index.search(query, 50), asked)) == expected


def test_keys_of_another_number(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 keys for 2 texts"):
        Bm25Index.build(["oak", "tea"], ["a"], tmp_path / "index")
    assert list(tmp_path.iterdir()) == []
