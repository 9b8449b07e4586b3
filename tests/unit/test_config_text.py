"""The configuration in words: sentences, round trip, the generated page."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.config import RunConfig, load_config, shipped_recipes, validate
from controller.config_text import as_markdown, as_toml
from controller.knobs import knobs

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"


def test_every_knob_has_a_sentence_and_says_what_it_takes() -> None:
    for knob in knobs(RunConfig):
        assert knob.sentence.endswith("."), f"{knob.key}: {knob.sentence!r} is not a sentence"
        assert len(knob.sentence) > 10, knob.key
        assert knob.allowed, f"{knob.key} has a type that controller.knobs has no words for"


@pytest.mark.parametrize("name", shipped_recipes())
def test_the_printed_tree_is_a_recipe_for_the_same_run(name: str, tmp_path: Path) -> None:
    config = load_config(name, ["seed=7", "learner.lr=1e-5", "inference.kv_cache_gib=3"])
    path = tmp_path / "again.toml"
    path.write_text(as_toml(config), encoding="utf-8")
    assert load_config(str(path)) == config


@given(
    text=st.text(st.characters(exclude_categories=["Cs"])),
    number=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    seed=st.integers(0, 2**31 - 1),
)
def test_any_text_and_number_survives(text: str, number: float, seed: int) -> None:
    config = validate({"model": text, "seed": seed, "queue": {"timeout_s": number}}, source="test")
    again = validate(tomllib.loads(as_toml(config)), source="test")
    assert again == config
    assert math.isfinite(again.queue.timeout_s)


def test_every_knob_stands_on_the_page_and_in_the_tree() -> None:
    page, tree = as_markdown(), as_toml(RunConfig())
    for knob in knobs(RunConfig):
        assert f"| `{knob.key}` |" in page
        assert f"# {knob.sentence} [{knob.allowed}]" in tree


def test_the_committed_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == as_markdown(), "run: t2po config --markdown > docs/configuration.md"
