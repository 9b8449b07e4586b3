"""Official files: all published shapes are read, what is damaged or mixed up is named, nothing is half stored."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from envs.data_folder import DataError
from envs.panel import load_panel
from envs.webshop import official
from envs.webshop.official import fetch_webshop, prepared_catalogue, stored_catalogue
from envs.webshop.tasks import has_data, panel_rows
from tests.unit.webshop_records import lamps, odd_records, options, record, tag_words, wanted

ODD = odd_records()
SMALL = ("items_shuffle_1000.json", "items_ins_v2_1000.json")
FULL = ("items_shuffle.json", "items_ins_v2.json")


def write_pair(folder: Path, products: Any, attributes: Any, human: Any = None, names: tuple[str, str] = SMALL) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(json.dumps(products))
    (folder / names[1]).write_text(json.dumps(attributes))
    if human is not None:
        (folder / "items_human_ins.json").write_text(json.dumps(human))
    return folder


def write_one(path: Path, content: Any) -> Path:
    text = json.dumps(content).encode()
    path.write_bytes(lzma.compress(text) if path.suffix == ".xz" else text)
    return path


def fetch(source: Path, folder: Path) -> official.FetchReport:
    return fetch_webshop(source, folder, make_tagger=lambda: tag_words)


def a_thousand(goals: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The size of the official small set, with so many synthetic goals."""
    products = lamps(1000)
    products[0]["customization_options"] = options(Number=[str(number) for number in range(goals)])
    return products, {each["asin"]: {"attributes": ["bright"]} for each in products} | {"B0LAMP0000": wanted()}


def test_all_shapes_of_a_source_give_one_shop(tmp_path: Path) -> None:
    pair = write_pair(tmp_path / "pair", ODD["products"], ODD["attributes"], ODD["human"])
    sources = [
        pair,
        pair / SMALL[0],
        write_pair(tmp_path / "full", ODD["products"], ODD["attributes"], ODD["human"], FULL),
        write_one(tmp_path / "one.json.xz", ODD),
        write_one(tmp_path / "one.json", ODD),
    ]
    for number, source in enumerate(sources):
        report = fetch(source, tmp_path / str(number))
        assert (report.num_products, report.num_synthetic, report.num_human) == (29, 41, 3)
        assert (report.skipped.repeats, report.skipped.unlisted) == (1, 2)
    shops = [stored_catalogue(tmp_path / str(number), full=False) for number in range(len(sources))]
    for shop in shops[1:]:
        assert [shop.product(n) for n in range(29)] == [shops[0].product(n) for n in range(29)]


def test_the_report_says_what_was_found(tmp_path: Path) -> None:
    lines = fetch(write_one(tmp_path / "one.json", ODD), tmp_path).lines()
    assert lines[0] == "products: 29, neither official set (1,000 or 1,181,436); stored as it is"
    assert lines[1:3] == ["synthetic goals: 41", "human goals: 3"]
    assert any("1 x asin that came before" in line for line in lines)
    without = {name: ODD[name] for name in ("products", "attributes")}
    assert "none" in fetch(write_one(tmp_path / "two.json", without), tmp_path).lines()[2]


def test_the_small_set_is_known_by_its_goals(tmp_path: Path) -> None:
    report = fetch(write_pair(tmp_path / "good", *a_thousand(6910)), tmp_path)
    assert report.lines()[0] == "products: 1,000, the official small set"
    with pytest.raises(DataError, match=r"1,000 products with 6,909 synthetic goals.*6,910"):
        fetch(write_pair(tmp_path / "bad", *a_thousand(6909)), tmp_path)


def test_the_full_set_has_a_place_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(official, "FULL_PRODUCTS", 29)
    source = write_pair(tmp_path / "full", ODD["products"], ODD["attributes"], names=FULL)
    assert fetch(source, tmp_path).folder.name == "official-full"
    assert has_data("official-full-test", tmp_path) and not has_data("official-test", tmp_path)


def test_panels_are_cut_from_the_list_as_published(tmp_path: Path) -> None:
    human = {"B0LAMP0000": [{"instruction": "a", "instruction_attributes": ["b"], "instruction_options": []}] * 501}
    fetch(write_pair(tmp_path / "data", *a_thousand(6910), human), tmp_path)
    found = {
        split: [int(row.id) for row in panel_rows(f"official-{split}", tmp_path)]
        for split in ("test", "train", "paper-test", "paper-eval", "paper-train", "human-train")
    }
    assert found["test"] == found["paper-test"] == list(range(500))
    assert found["train"] == list(range(500, 6910)) and found["human-train"] == []  # 501 times one goal
    assert found["paper-eval"] == list(range(500, 1500)) and found["paper-train"] == list(range(1500, 6910))
    panel = load_panel("webshop", "official-test", tmp_path)
    assert panel.tasks[3].id == "3" and panel.tasks[3].kind == "garden"
    assert len({row.digest for row in panel_rows("official-train", tmp_path)}) == 6410
    assert panel_rows("official-test", tmp_path, goal_seed=1) != panel_rows("official-test", tmp_path)


def test_panels_that_are_not_here_say_what_to_do(tmp_path: Path) -> None:
    assert not has_data("official-train", tmp_path)
    with pytest.raises(DataError, match="t2po data get webshop"):
        panel_rows("official-train", tmp_path)
    fetch(write_pair(tmp_path / "data", ODD["products"], ODD["attributes"]), tmp_path)
    assert has_data("official-test", tmp_path) and not has_data("official-human-test", tmp_path)
    with pytest.raises(DataError, match="items_human_ins.json"):
        panel_rows("official-human-test", tmp_path)
    with pytest.raises(DataError, match="no panel 'other'"):
        panel_rows("other", tmp_path)


def test_fetching_again_replaces(tmp_path: Path) -> None:
    fetch(write_one(tmp_path / "one.json", ODD), tmp_path)
    before = stored_catalogue(tmp_path, full=False)
    attributes = {each["asin"]: {"attributes": []} for each in lamps(3)}
    fetch(write_pair(tmp_path / "pair", lamps(3), attributes), tmp_path)
    assert len(stored_catalogue(tmp_path, full=False)) == 3
    assert before.product(28).asin == "B0CHAIR002"  # who has the older one goes on with it
    assert [path.name for path in (tmp_path / "webshop").iterdir()] == ["official"]


PAIR = (lamps(3), {each["asin"]: {"attributes": []} for each in lamps(3)})


@pytest.mark.parametrize(
    ("products", "attributes", "named"),
    [
        (json.dumps(PAIR[0])[:-40], json.dumps(PAIR[1]), r"items_shuffle_1000.json, record 3: .*cut short"),
        (json.dumps(PAIR[0])[:-1], json.dumps(PAIR[1]), "items_shuffle_1000.json, record 3: .*end of the file"),
        ("", json.dumps(PAIR[1]), "items_shuffle_1000.json: holds no JSON list or object"),
        ("[]", json.dumps(PAIR[1]), "empty"),
        (json.dumps(PAIR[1]), json.dumps(PAIR[0]), "items_.*1000.json: holds .*mixed up"),
        (json.dumps(PAIR[0]), json.dumps(PAIR[1])[:-9], r"items_ins_v2_1000.json, record 3: .*cut short"),
        (json.dumps(PAIR[0]), "{}", r"record 1 \(B0LAMP0000\).*do not belong together"),
        (json.dumps(PAIR[0]) + "]", json.dumps(PAIR[1]), "more text behind its end"),
        (json.dumps(PAIR[0]).replace("}, {", "} {"), json.dumps(PAIR[1]), "record 1: { where a comma belongs"),
        (json.dumps([*PAIR[0], {"asin": 3}]), json.dumps(PAIR[1]), "record 4: no text asin"),
        ("[" * 100_000, json.dumps(PAIR[1]), "items_shuffle_1000.json, record 1: "),
        ("\x00\x01", json.dumps(PAIR[1]), "holds no JSON"),
    ],
)
def test_damage_is_named_and_nothing_is_stored(tmp_path: Path, products: str, attributes: str, named: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / SMALL[0]).write_text(products)
    (tmp_path / "data" / SMALL[1]).write_text(attributes)
    with pytest.raises(DataError, match=named):
        fetch(tmp_path / "data", tmp_path / "stored")
    assert not list((tmp_path / "stored").glob("webshop/*"))


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    folder = write_pair(tmp_path / "data", *PAIR)
    (folder / SMALL[0]).write_bytes(b'["\xff\xfe"]')
    with pytest.raises(DataError, match=f"{SMALL[0]}, record 1"):
        fetch(folder, tmp_path)
    (tmp_path / "cut.json.xz").write_bytes(lzma.compress(json.dumps(ODD).encode())[:-50])
    with pytest.raises(DataError, match="cut.json.xz.*damaged"):
        fetch(tmp_path / "cut.json.xz", tmp_path)


@pytest.mark.parametrize("content", [[], 3, {"products": []}, {"products": {}, "attributes": {}}, {**ODD, "human": []}])
def test_one_file_needs_products_and_attributes(tmp_path: Path, content: Any) -> None:
    with pytest.raises(DataError, match=r"one.json: no (products|attributes|human)"):
        fetch(write_one(tmp_path / "one.json", content), tmp_path)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    cases = {tmp_path / "empty": "holds none of", tmp_path / "nowhere": "does not exist"}
    half = write_pair(tmp_path / "half", *PAIR)
    (half / SMALL[1]).unlink()
    mixed = write_pair(tmp_path / "mixed", *PAIR)
    (mixed / SMALL[1]).rename(mixed / FULL[1])
    both = write_pair(write_pair(tmp_path / "both", *PAIR), *PAIR, names=FULL)
    (tmp_path / "data.zip").write_text("zip")
    cases |= {half: "items_ins_v2_1000.json is missing", mixed: "items_ins_v2_1000.json is missing"}
    cases |= {both: "name the one that is wanted", tmp_path / "data.zip": "unpack the archive"}
    for source, named in cases.items():
        with pytest.raises(DataError, match=named):
            fetch(source, tmp_path / "stored")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be written"):
        fetch(write_pair(tmp_path / "data", *PAIR), tmp_path / "file")


def test_large_files_are_read_in_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envs.webshop.json_stream._CHUNK", 7)
    assert fetch(write_pair(tmp_path / "data", *PAIR), tmp_path).num_products == 3


def test_damage_does_not_read_on_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envs.webshop.json_stream._CHUNK", 64)
    monkeypatch.setattr("envs.webshop.json_stream._LONGEST_MEMBER", 5000)
    folder = write_pair(tmp_path / "data", *PAIR)
    (folder / SMALL[0]).write_text('[{"asin": x' + json.dumps(lamps(200)))
    with pytest.raises(DataError, match="record 1: no JSON"):
        fetch(folder, tmp_path)


def test_files_are_prepared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T2PO_DATA", str(tmp_path / "stored"))
    made = []

    def make() -> Any:
        made.append(1)
        return tag_words

    source = write_one(tmp_path / "one.json", ODD)
    first = prepared_catalogue(source, make_tagger=make)
    moved = source.rename(tmp_path / "moved.json")
    assert prepared_catalogue(moved, make_tagger=make) is first and len(made) == 1
    (folder,) = (tmp_path / "stored" / "webshop").iterdir()
    assert prepared_catalogue(folder, make_tagger=make) is first
    write_one(moved, {**ODD, "human": {}})
    assert prepared_catalogue(moved, make_tagger=make) is not first and len(made) == 2


def test_prepared_data_that_is_damaged_is_prepared_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T2PO_DATA", str(tmp_path))
    source = write_one(tmp_path / "one.json", ODD)
    prepared_catalogue(source, make_tagger=lambda: tag_words)
    (folder,) = (tmp_path / "webshop").iterdir()
    (folder / "index" / "header.json").unlink()
    official._opened.cache_clear()
    with pytest.raises(DataError, match="t2po data get webshop"):
        prepared_catalogue(folder)
    assert len(prepared_catalogue(source, make_tagger=lambda: tag_words)) == 29
    assert len(prepared_catalogue(folder)) == 29


def test_without_a_data_folder_the_temporary_one_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("T2PO_DATA", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    source = write_one(tmp_path / "one.json", {"products": [record("B0A")], "attributes": {"B0A": {}}})
    assert len(prepared_catalogue(source, make_tagger=lambda: tag_words)) == 1
    assert len(list(tmp_path.glob("t2po-*/webshop/*"))) == 1


def test_a_goal_of_the_test_is_not_trained_on_under_another_number(tmp_path: Path) -> None:
    """A product that lists a value twice gives two goals of one content; the published cut may part them."""
    products, attributes = a_thousand(6910)
    fetch(write_pair(tmp_path / "data", products, attributes), tmp_path)
    clean = {int(row.id) for row in panel_rows("official-train", tmp_path)}
    assert clean == set(range(500, 6910))
    one = panel_rows("official-test", tmp_path)[0]
    twice = {"B0LAMP0000": [{"instruction": "a", "instruction_attributes": ["b"], "instruction_options": []}] * 600}
    fetch(write_pair(tmp_path / "again", products, attributes, twice), tmp_path)
    assert len(panel_rows("official-human-test", tmp_path)) == 500
    assert not has_data("official-human-train", tmp_path)
    assert panel_rows("official-test", tmp_path)[0] == one
