"""The Factbook suite: the same bytes everywhere, honest panels, golds that the passages tell, real multi-hop."""

from __future__ import annotations

import fcntl
import multiprocessing
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from envs.data_folder import DataError
from envs.search import factbook, factbook_source
from envs.search.corpus import Corpus
from envs.search.expert import tells
from envs.search.factbook import CORPUS_HASH, PANELS, factbook_folder
from envs.search.factbook_facts import ATTRIBUTES, without_accents
from envs.search.factbook_panels import elements_apart, make_panels, places_apart
from envs.search.factbook_questions import Asked, askable, make_questions
from envs.search.factbook_source import Place, clean, read_elements, read_places
from envs.search.panels import panel_questions
from envs.search.reach import measure_reach
from envs.search.retriever import local_retriever
from tests.unit.search_suite import suite_data

PLACES, ELEMENTS = read_places(), read_elements()
READ = {attribute.key: attribute.read for attribute in ATTRIBUTES}


def all_questions() -> tuple[list[Asked], frozenset[str]]:
    asked = askable(PLACES)
    away = places_apart(asked)
    apart = away | elements_apart(ELEMENTS, {place.name: place for place in asked}, away)
    return list(make_questions(PLACES, ELEMENTS, away.__contains__)), frozenset(apart)


def test_the_suite_is_the_same_bytes_on_every_machine() -> None:
    """`factbook_folder` checks both hashes; another process, with another hash seed, comes to the same."""
    corpus = Corpus.open(factbook_folder(suite_data()) / "corpus")
    assert corpus.hash == CORPUS_HASH and len(corpus) == 12114
    words = [len(passage.contents.split()) for passage in corpus]
    assert 80 < sum(words) / len(words) < 90 and max(words) < 130
    assert all(passage.contents.startswith('"') and '"\n' in passage.contents for passage in corpus)
    code = (
        "from envs.search.factbook import *; p = make_panels(read_places(), read_elements()); print(questions_hash(p))"
    )
    made = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PYTHONHASHSEED": "77"},
        check=True,
    )
    assert made.stdout.strip() == factbook.QUESTIONS_HASH


def test_sizes_and_kinds_of_the_panels() -> None:
    kinds = {name: Counter(q.data_source for q in panel_questions(name, suite_data())) for name in PANELS}
    assert {name: sum(count.values()) for name, count in kinds.items()} == {"train": 6776, "seen": 500, "unseen": 500}
    for name, most in (("train", 35), ("seen", 25), ("unseen", 15)):
        assert len(kinds[name]) == 4 and min(kinds[name].values()) >= most


def test_no_unseen_place_or_element_is_in_training() -> None:
    """By what questions are about, bridges included; and no question is in two panels."""
    questions, apart = all_questions()
    about = {one.question.id: one.entities for one in questions}
    panels = make_panels(PLACES, ELEMENTS)
    for name in ("train", "seen"):
        assert not any(about[question.id] & apart for question in panels[name])
    assert all(about[question.id] <= apart for question in panels["unseen"])
    digests = [question.digest for name in PANELS for question in panels[name]]
    assert len(set(digests)) == len(digests)
    known = {entity for question in panels["train"] for entity in about[question.id]}
    unknown = {entity for question in panels["unseen"] for entity in about[question.id]}
    assert not known & unknown and len(unknown) > 25
    # seen questions are about what training knows
    assert {entity for question in panels["seen"] for entity in about[question.id]} <= known
    # nor does the text of a training question name an unseen place
    names = {place.name for place in askable(PLACES) if place.code in apart}
    named = [q.question for q in panels["train"] if any(q.question.endswith(f" {name}?") for name in names)]
    assert not named


def test_every_step_of_a_plan_is_told_by_the_passages() -> None:
    """Each value is in a passage about the place that the query names: the gold is never from elsewhere."""
    corpus = Corpus.open(factbook_folder(suite_data()) / "corpus")
    by_title: dict[str, list[str]] = {}
    for passage in corpus:
        by_title.setdefault(passage.contents.split(":", 1)[0].lstrip('"'), []).append(passage.contents)
    everything = {title: "\n".join(texts) for title, texts in by_title.items()}
    questions, _ = all_questions()
    for one in questions[::7]:
        last = one.question.plan[-1]
        title = next(name for name in (last.query[:end] for end in range(len(last.query), 0, -1)) if name in everything)
        assert last.found in everything[title], one.question.id
        if one.question.data_source != "factbook-compare":
            assert last.found == one.question.answers[0]


def test_hops_and_plans() -> None:
    questions, _ = all_questions()
    for one in questions:
        question = one.question
        assert question.hops == len(question.plan) == {"1": 1, "2": 2, "c": 2, "3": 3}[question.data_source[9]]
        assert question.answers and all(gold.strip() == gold and gold for gold in question.answers)
        # the answer never stands in the question, but for a comparison
        if question.hops > 1 and question.data_source != "factbook-compare":
            assert not tells(question.question, question.answers[:1]) or question.plan[-1].query.endswith("code")


def test_a_second_search_is_needed_and_enough() -> None:
    """The raw question finds the answer of most one-hop questions and of few others; the plan's searches find all."""
    reach = measure_reach(panel_questions("unseen", suite_data()), local_retriever(data_dir=suite_data()))
    one, two = reach["factbook-1hop"], reach["factbook-2hop"]
    assert one["raw"] > 0.9 and two["raw"] < 0.25 and reach["factbook-3hop"]["raw"] < 0.25
    assert two["one"] < 0.25 and two["two"] > 0.95 and two["last"] > 0.95
    assert reach["factbook-3hop"]["two"] < 0.25 and reach["factbook-3hop"]["three"] > 0.9
    assert reach["factbook-compare"]["one"] < 0.5 and reach["factbook-compare"]["two"] > 0.95


def entry(**texts: str) -> Place:
    """A place with single fields, by the names that the facts read."""
    paths = {
        "capital": ("Government", "Capital", "name"),
        "peak": ("Geography", "Elevation", "highest point"),
        "currency": ("Economy", "Exchange rates", "Currency"),
        "anthem": ("Government", "National anthem(s)", "title"),
        "area": ("Geography", "Area", "total"),
        "population": ("People and Society", "Population", "total"),
        "adjective": ("People and Society", "Nationality", "adjective"),
        "code": ("Communications", "Internet country code"),
    }
    return Place("zz", "Zedland", {paths[name]: text for name, text in texts.items()})


@pytest.mark.parametrize(
    ("key", "text", "golds"),
    [
        ("capital", "Quito", ("Quito",)),
        ("capital", "Bogotá (capital)", ("Bogotá", "Bogota")),
        ("capital", "Porto-Novo (constitutional capital); Cotonou (seat of government)", ()),
        ("capital", "no official capital", ()),
        ("peak", "Mount Kenya 5,199 m", ("Mount Kenya",)),
        ("peak", "Loma Mansa (Bintimani) 1,948 m", ("Loma Mansa", "Bintimani", "Loma Mansa (Bintimani)")),
        ("peak", "Kilimanjaro (highest point in Africa) 5,895 m", ("Kilimanjaro",)),
        ("peak", "Chimborazo 6,267", ("Chimborazo",)),
        ("peak", "unnamed location 5 m", ()),
        ("peak", "3.6 km W. of Al-Salmi Border Post 300 m", ()),
        ("currency", "euros (EUR) per US dollar -", ("euros", "euro", "EUR", "euros (EUR)")),
        ("currency", "yen (JPY) per US dollar -", ("yen", "JPY", "yen (JPY)")),
        ("currency", "Tuvaluan dollars or Australian dollars (AUD) per US dollar -", ()),
        ("anthem", '"Kassaman" (We Pledge)', ("Kassaman", "We Pledge")),
        ("anthem", "“Pátria Amada” (Lovely Fatherland)", ("Pátria Amada", "Patria Amada", "Lovely Fatherland")),
        ("anthem", "the Swiss anthem has four names", ()),
        ("area", "2,724,900 sq km", ("2,724,900", "2,724,900 sq km")),
        ("area", "0 sq km", ()),
        ("area", "3 sq km less than", ("3", "3 sq km")),
        ("area", "1.284 million sq km", ()),
        ("population", "20,432,662 (2025 est.)", ("20,432,662",)),
        ("population", "no permanent inhabitants", ()),
        ("adjective", "Kazakhstani", ("Kazakhstani",)),
        ("adjective", "Saudi or Saudi Arabian", ()),
        ("code", ".kz", (".kz",)),
        ("code", ".fr; note - also .gf", ()),
    ],
)
def test_golds_are_read_strictly(key: str, text: str, golds: tuple[str, ...]) -> None:
    assert READ[key](entry(**{key: text})) == golds


def test_cleaning() -> None:
    assert clean("<p>C&ocirc;te&nbsp;d'Ivoire<br><br>a &amp;lt; b</p>") == "Côte d'Ivoire a < b"
    assert without_accents("Ħumāt Türkmenistanyň") == "Ħumat Turkmenistanyn"


def test_a_missing_or_other_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(factbook_source.PACKAGES, "mendeleev", ("mendeleev", "9.9.9"))
    with pytest.raises(DataError, match=r"mendeleev is 1\.3\.0, .* 9\.9\.9: run make setup"):
        read_elements()
    monkeypatch.setitem(factbook_source.PACKAGES, "no-such-package", ("no_such_package", "1"))
    with pytest.raises(DataError, match="no-such-package 1, .* missing: run make setup"):
        factbook_source.package_folder("no-such-package")


def test_a_suite_that_comes_out_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(factbook, "QUESTIONS_HASH", "0" * 32)
    with pytest.raises(DataError, match="came out as"):
        factbook_folder(tmp_path)
    assert [path.name for path in (tmp_path / "search").iterdir() if path.is_dir()] == []


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="set T2PO_DATA"):
        factbook_folder(tmp_path / "file")


def _make(folder: str) -> str:
    return str(factbook_folder(Path(folder)))


def test_two_processes_at_once_make_one_suite(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        made = pool.map_async(_make, [str(tmp_path)] * 2).get(timeout=120)
    assert made[0] == made[1] and len(list(Path(made[0]).iterdir())) == 4
    assert [path.name for path in (tmp_path / "search").iterdir() if path.is_dir()] == [Path(made[0]).name]


def test_who_comes_second_waits_for_the_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = factbook_folder(suite_data())
    monkeypatch.setattr(factbook, "_make", lambda folder: pytest.fail("made a second time"))
    (tmp_path / "search").mkdir()
    with (tmp_path / "search" / f".{made.name}.lock").open("w") as lock, ThreadPoolExecutor(1) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = pool.submit(factbook_folder, tmp_path)
        with pytest.raises(TimeoutError):
            second.result(0.5)
        shutil.copytree(made, tmp_path / "search" / made.name)
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert second.result(30) == tmp_path / "search" / made.name
