"""Official question sets: all published shapes are read alike, the published selection is kept, damage is named."""

from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from envs.data_folder import DataError
from envs.records import Task
from envs.search.env import SearchEnv, shown_text
from envs.search.official import fetch_search
from envs.search.official_rows import data_set
from envs.search.panels import panel_questions, panel_rows, question_of
from envs.search.reply import answer_action, search_action
from envs.search.retriever import local_retriever


def row(number: int, source: str = "nq", **more: Any) -> dict[str, Any]:
    """A FlashRAG line."""
    return {"id": f"row_{number}", "question": f"{source} {number}?", "golden_answers": [f"a{number}", "b"], **more}


def search_r1(number: int, source: str) -> dict[str, Any]:
    plain = row(number, source)
    truth = {"style": "rule", "ground_truth": {"target": plain["golden_answers"]}}
    return {"id": plain["id"], "question": plain["question"], "data_source": source, "reward_model": truth}


def verl_agent(number: int, source: str) -> dict[str, Any]:
    plain = row(number, source)
    truth = {"target": plain["golden_answers"]}
    inner = {"question": plain["question"], "ground_truth": truth, "data_source": f"searchR1_{source}"}
    return {"prompt": "long", "env_kwargs": inner, "extra_info": {"index": plain["id"], "split": "?"}}


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(data) + "\n" for data in rows).encode()
    pack = {".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)
    path.write_bytes(pack(text))
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def test_all_shapes_give_the_same_panels(tmp_path: Path) -> None:
    train, tests = [(1, "nq"), (2, "hotpotqa")], [(3, "nq"), (4, "popqa"), (5, "bamboogle")]
    for shape, make in (("search_r1", search_r1), ("verl_agent", verl_agent)):
        write_parquet(tmp_path / shape / "train.parquet", [make(*one) for one in train])
        write_parquet(tmp_path / shape / "test.parquet", [make(*one) for one in tests])
    for number, source in train:
        write_lines(tmp_path / "flashrag" / source / "train.jsonl", [row(number, source)])
    for number, source in tests:
        write_lines(tmp_path / "flashrag" / source / "test.jsonl.gz", [row(number, source)])
    found = {}
    for shape in ("search_r1", "verl_agent", "flashrag"):
        report = fetch_search(tmp_path / shape, tmp_path / "data" / shape)
        assert sum(report.counts.values()) == 5 and not report.skipped
        names = ("official-train", "official-test", "official-nq", "official-popqa")
        found[shape] = {name: panel_rows(name, tmp_path / "data" / shape) for name in names}
    assert found["search_r1"] == found["verl_agent"] == found["flashrag"]
    assert [name for name, _, _ in found["flashrag"]["official-train"]] == ["hotpotqa/row_2", "nq/row_1"]
    assert [kind for _, kind, _ in found["flashrag"]["official-test"]] == ["bamboogle", "nq", "popqa"]
    assert [name for name, _, _ in found["flashrag"]["official-popqa"]] == ["popqa/row_4"]


def test_the_published_selection(tmp_path: Path) -> None:
    source = tmp_path / "sets"
    write_lines(source / "nq" / "train.jsonl", [row(1), row(2)])
    write_lines(source / "nq" / "dev.jsonl", [row(3)])
    write_lines(source / "nq" / "test.jsonl", [row(4), {**row(5), "question": "nq 2?", "golden_answers": ["b", "a2"]}])
    write_lines(source / "2wiki" / "dev.jsonl.xz", [row(6, "2wiki")])
    write_lines(source / "musique" / "train.jsonl", [row(7, "musique")])
    write_lines(source / "squad" / "dev.jsonl", [row(8, "squad")])
    report = fetch_search(source, tmp_path)
    assert dict(report.counts) == {("train", "nq"): 1, ("test", "nq"): 2, ("test", "2wikimultihopqa"): 1}
    assert report.skipped == {
        "train question that a test asks as well": 1,
        "dev of nq: its test file counts": 1,
        "train of musique: only nq and hotpotqa are trained on": 1,
        "dev of squad: not one of the published sets": 1,
    }
    lines = report.lines()
    assert "official-train, nq: 1 questions (79168 were published)" in lines
    assert any(line.startswith("none in this source: train hotpotqa, test triviaqa") for line in lines)
    digests = {
        name: {digest for _, _, digest in panel_rows(name, tmp_path)} for name in ("official-train", "official-test")
    }
    assert not digests["official-train"] & digests["official-test"]


@pytest.mark.parametrize(
    ("named", "path", "found"),
    [
        ("searchR1_nq", "x/test.parquet", "nq"),
        ("2WikiMultiHopQA", "x/test.parquet", "2wikimultihopqa"),
        (None, "x/hotpotqa_train.jsonl", "hotpotqa"),
        (None, "trivia_qa/dev.jsonl.gz", "triviaqa"),
        ("", "tqa/test.jsonl", "triviaqa"),
    ],
)
def test_names_of_data_sets(named: object, path: str, found: str) -> None:
    assert data_set(named, Path(path)) == found


def test_answers_in_every_place(tmp_path: Path) -> None:
    rows = [
        {"id": 1, "question": "q1", "golden_answers": "one", "data_source": "nq"},
        {"id": 2, "question": "q2", "answers": ["two", " two ", 2], "data_source": "nq"},
        {
            "id": 3,
            "question": "q3",
            "data_source": "nq",
            "reward_model": json.dumps({"ground_truth": {"target": "three"}}),
        },
        {"question": "q4", "golden_answers": ["four"], "data_source": "nq"},
    ]
    fetch_search(write_lines(tmp_path / "test.jsonl", rows), tmp_path)
    found = {question.id: question.answers for question in panel_questions("official-test", tmp_path)}
    assert found == {"nq/1": ("one",), "nq/2": ("two", "2"), "nq/3": ("three",), "nq/test_4": ("four",)}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nq_test.jsonl", b"", "is empty"),
        ("nq_test.jsonl", b'{"question": "q", "golden_answers": ["a"]}\n{"question"', "row 2: .*damaged"),
        ("nq_test.jsonl", b'{"question": "q", "golden_answers": ["a"]}\n[]\n', "row 2: not a JSON object"),
        ("nq_test.jsonl", b'{"question": " ", "golden_answers": ["a"]}\n', "row 1: no text in question"),
        ("nq_test.jsonl", b'{"question": "q", "golden_answers": [""]}\n', "row 1: no answer"),
        ("nq_test.jsonl", b'{"question": "q", "target": "a"}\n', "row 1: no answer"),
        ("nq_test.jsonl", b'{"text_a": "q", "label": 1}\n', "row 1: columns text_a, label: neither questions"),
        ("nq.jsonl", b'{"question": "q", "golden_answers": ["a"]}\n', "says train, dev or test"),
        ("nq_test.jsonl", b"\xff\xfe\n", "row 1: .*damaged"),
        ("nq_test.jsonl.gz", b"\x1f\x8b broken", "damaged"),
        ("nq_test.jsonl.xz", b"broken", "damaged"),
        ("test.parquet", b"PAR1 broken", "test.parquet, row 1: .*damaged"),
        ("test.parquet", b"", "damaged"),
        ("questions.csv", b"q,a\n", "name a .parquet or .jsonl file"),
    ],
)
def test_damaged_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        fetch_search(path, tmp_path)
    assert str(path) in str(caught.value)
    assert not (tmp_path / "search").exists()


def test_files_that_are_cut_short(tmp_path: Path) -> None:
    rows = [search_r1(number, "nq") for number in range(500)]
    for path in (
        write_parquet(tmp_path / "test.parquet", rows),
        write_lines(tmp_path / "test.jsonl.gz", rows),
        write_lines(tmp_path / "test.jsonl.xz", rows),
    ):
        whole = path.read_bytes()
        for cut in (1, len(whole) // 2, len(whole) - 5):
            path.write_bytes(whole[:cut])
            with pytest.raises(DataError, match=rf"{path.name}.*(damaged|is empty)"):
                fetch_search(path, tmp_path)


def test_one_id_twice(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "nq_test.jsonl", [row(1), row(2), row(1)])
    with pytest.raises(DataError, match=r"nq_test.jsonl, row 3: id nq/row_1 occurs a second time, first in .*, row 1"):
        fetch_search(path, tmp_path)


def test_parquet_without_questions(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="test.parquet: columns id, text: no questions"):
        fetch_search(write_parquet(tmp_path / "test.parquet", [{"id": 1, "text": "x"}]), tmp_path)


def test_sources_that_are_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        fetch_search(tmp_path / "nowhere", tmp_path)
    (tmp_path / "readme.txt").write_text("x")
    with pytest.raises(DataError, match="holds no .parquet or .jsonl file"):
        fetch_search(tmp_path, tmp_path)


def test_a_corpus_is_stored_with_its_index_and_played_on(tmp_path: Path) -> None:
    source = tmp_path / "source"
    passages = [{"id": str(n), "contents": f'"Town {n}"\nThe mayor of Town {n} is Person{n}.'} for n in range(50)]
    passages[7] = {"id": 7, "title": "Town 7", "text": "The mayor of Town 7 is Ada."}  # type: ignore[dict-item]
    write_lines(source / "wiki-18.jsonl.gz", passages)
    write_lines(source / "nq_test.jsonl", [{"id": "x", "question": "mayor of Town 7?", "golden_answers": ["Ada"]}])
    said: list[str] = []
    report = fetch_search(source, tmp_path / "data", said.append)
    assert report.corpus == "wiki-18" and report.num_passages == 50
    assert "corpus wiki-18: 50 passages, with its index" in report.lines() and said
    retriever = local_retriever("wiki-18", data_dir=tmp_path / "data")
    env = SearchEnv(retriever=retriever, data_dir=tmp_path / "data")
    name, kind, _ = panel_rows("official-nq", tmp_path / "data")[0]
    task = Task(env="search", panel="official-nq", index=0, id=name, kind=kind)
    question, _ = env.reset(options={"task": task})
    assert '"Town 7"\nThe mayor of Town 7 is Ada.' in shown_text(env.step(search_action(question))[0])
    assert env.step(answer_action("ada"))[1:3] == (1.0, True)


def test_damaged_corpora(tmp_path: Path) -> None:
    good = {"id": "1", "contents": "x"}
    for bad, message in (
        ({"id": "1", "contents": "y"}, "id '1' occurs twice, in row 1 and row 2"),
        ({"id": None, "contents": "y"}, "row 2: no id"),
        ({"id": "2", "contents": ["y"]}, "row 2: no id, or no text"),
    ):
        path = write_lines(tmp_path / "c.jsonl", [good, bad])
        with pytest.raises(DataError, match=message):
            fetch_search(path, tmp_path / "data")
        assert not list((tmp_path / "data" / "search").glob("*"))
    write_lines(tmp_path / "two" / "a.jsonl", [good])
    write_lines(tmp_path / "two" / "b.jsonl", [good])
    with pytest.raises(DataError, match="holds 2 corpora"):
        fetch_search(tmp_path / "two", tmp_path)
    with pytest.raises(DataError, match="cannot be called factbook"):
        fetch_search(write_lines(tmp_path / "factbook.jsonl", [good]), tmp_path)


def test_stored_panels_that_are_missing_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="t2po data get search"):
        panel_rows("official-nq", tmp_path)
    with pytest.raises(DataError, match="no panel 'official-squad': use one of train, seen"):
        panel_rows("official-squad", tmp_path)
    fetch_search(write_lines(tmp_path / "nq_test.jsonl", [row(1)]), tmp_path)
    with pytest.raises(DataError, match="holds no questions of popqa"):
        panel_rows("official-popqa", tmp_path)
    task = Task(env="search", panel="official-nq", index=1, id="nq/row_1", kind="nq")
    with pytest.raises(DataError, match="nq/row_1 is not number 1"):
        question_of(task, tmp_path)
    path = tmp_path / "search" / "official-test.jsonl.xz"
    for content, message in ((b"not xz", "damaged, fetch it again"), (lzma.compress(b"{}\n"), "line 1: .*damaged")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            panel_rows("official-test", tmp_path)


def test_an_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        fetch_search(write_lines(tmp_path / "nq_test.jsonl", [row(1)]), tmp_path / "file")
