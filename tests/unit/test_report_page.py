"""The page as a file: nothing from outside, nothing of the data as markup, small enough."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from controller.report.collection import collect
from controller.report.page import PARTS, SCRIPTS, page_of, safe_json
from tests.report_runs import HOSTILE, make_run


def page(tree: dict[str, Any], **options: Any) -> str:
    return page_of(tree, "title", **options).decode()


def data_of(text: str) -> dict[str, Any]:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, flags=re.DOTALL)
    return dict(json.loads(found))


def test_hostile_texts_come_back_as_they_were_and_are_no_markup(tmp_path: Path) -> None:
    text = page(collect([make_run(tmp_path)]))
    tree = data_of(text)
    assert HOSTILE in tree["strings"]
    assert text.count("<script") == text.count("</script>") == 2
    assert "\u2028" not in text and "\x00" not in text and "taken'</" not in text


@pytest.mark.parametrize(
    "text", [HOSTILE, "]]>", "\\u003c/script>", "\r\n\t", "日本\U0001f600", '"quotes"', "<!--<script>"]
)
def test_json_survives_within_a_script_element(text: str) -> None:
    written = safe_json({text: [text]})
    assert json.loads(written) == {text: [text]}
    assert not set("<>&\u2028\u2029") & set(written)


def test_lone_surrogates_do_not_end_the_page() -> None:
    assert data_of(page({"text": "\ud800"})) == {"text": "?"}


def test_policy_admits_the_scripts_and_styles_of_the_page_alone() -> None:
    text = page({})
    policy = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)[0]
    assert "default-src 'none'" in policy and "connect-src 'none'" in policy and "unsafe" not in policy
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "connect-src 'self'" in page({}, live=True)


def test_page_refers_to_nothing_outside_itself() -> None:
    text = page({})
    assert set(re.findall(r"https?://[^\"'\s]+", text)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<(img|iframe|object|embed|base|form)\b|@import|url\(|@font-face|\bsrc=", text)


def test_scripts_make_no_markup_of_texts() -> None:
    for name in SCRIPTS:
        text = (PARTS / name).read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            name
        )
        assert text.startswith("// Owns: "), name
    assert {path.name for path in PARTS.glob("*.js")} == set(SCRIPTS)


def test_title_is_escaped() -> None:
    assert "<title>a &lt;b&gt; &amp; c</title>" in page_of({}, "a <b> & c").decode()


def test_same_files_give_the_same_page(tmp_path: Path) -> None:
    path = make_run(tmp_path)
    assert page(collect([path], now=1.0)) == page(collect([path], now=1.0))
    assert len(page(collect([path]))) < 300_000
