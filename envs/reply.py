"""The model's reply: is it in the strict format, and which action does it ask for.

Owns: `parse_reply`. Called by the rollout and by the cold start's checks. Must not know: which actions are
admissible. Works in one pass over the text, whatever the text is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# re.ASCII: without it IGNORECASE lets the Kelvin sign pass for the k of "think"
_TAG = re.compile(r"<(/?)(think|action)>", re.IGNORECASE | re.ASCII)
_HAN = re.compile(r"[\u4e00-\u9fff]")
_ORDER = ("think", "/think", "action", "/action")
_LAST_RESORT = 30


@dataclass(frozen=True, slots=True)
class Reply:
    """`action` is what is sent to the environment, `format_valid` whether the strict format was kept.

    `has_action`: there is an action block; without one the turn is void, and `action` is a guess.
    """

    action: str
    format_valid: bool
    has_action: bool


def parse_reply(text: str) -> Reply:
    """Read one reply.

    Strict: white space, one `<think>...</think>`, white space, one `<action>...</action>`, white space, nothing
    else; each tag exactly once, any case; no character of U+4E00 to U+9FFF. A reply that breaks this still acts,
    on best effort: by its first action block, else by its last 30 characters.
    """
    tags = list(_TAG.finditer(text))
    names = tuple((tag.group(1) + tag.group(2)).lower() for tag in tags)
    if names == _ORDER:
        opened, closed, action, end = tags
        outside = text[: opened.start()] + text[closed.end() : action.start()] + text[end.end() :]
        strict = not outside.strip() and _HAN.search(text) is None
        return Reply(text[action.end() : end.start()].strip().lower(), strict, True)
    start = next((place for place, name in enumerate(names) if name == "action"), len(names))
    stop = next((place for place, name in enumerate(names) if name == "/action" and place > start), None)
    if stop is not None:
        return Reply(text[tags[start].end() : tags[stop].start()].strip().lower(), False, True)
    return Reply(text[-_LAST_RESORT:].strip().lower(), False, False)
