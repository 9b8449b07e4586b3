"""The page: one HTML file that holds its style, its scripts and its data, and asks for nothing else.

Owns: putting the files of `data/` and a report's tree together, the content security policy. Called by
`controller.report.command` and `controller.report.server`. Must not know: what the tree holds.

Nothing that a policy or an environment wrote can become markup or script: the data stands in a script element that is
not executed, as JSON without any `<`, `>` or `&`; the scripts make text nodes of it; and the policy admits only scripts
and styles with the hashes of ours.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

PARTS = Path(__file__).parent / "data"
SCRIPTS = (
    "elements.js", "numbers.js", "place.js", "chart.js", "summary.js", "curves.js", "kinds.js", "comparison.js",
    "tokens.js", "browser.js", "settings.js", "live.js", "page.js",
)  # fmt: skip
"""In the order in which they stand in the page; they share one scope."""
_ESCAPES = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


def page_of(tree: Mapping[str, Any], title: str, *, live: bool = False) -> bytes:
    """The page as UTF-8. `live`: it asks the server that it came from for news."""
    script, style = _script(), _part("style.css")
    policy = [
        "default-src 'none'",
        f"script-src '{_hash(script)}'",
        f"style-src '{_hash(style)}'",
        f"connect-src {chr(39)}{'self' if live else 'none'}{chr(39)}",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    parts = {
        "policy": "; ".join(policy),
        "title": html.escape(title),
        "style": style,
        "script": script,
        "live": "yes" if live else "no",
        "data": safe_json(tree),
    }
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _part("page.html"))
    return page.encode("utf-8", errors="replace")


def safe_json(tree: Mapping[str, Any]) -> str:
    """JSON that can stand within a script element: whatever a text says, it does not end the element."""
    return json.dumps(tree, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(_ESCAPES)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _part(name: str) -> str:
    return (PARTS / name).read_text(encoding="utf-8")


@cache
def _script() -> str:
    return '"use strict";\n(() => {\n' + "\n".join(map(_part, SCRIPTS)) + "})();\n"
