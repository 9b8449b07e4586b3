"""The model's reply in Search QA: a thought, then a search or an answer.

Owns: `parse_search_reply` and the tags of an action. Called by the rollout and by the cold start's checks. Must not
know: retrieval, questions, prompts. Works in one pass over the text, whatever the text is.
"""

from __future__ import annotations

import re
from itertools import pairwise

from envs.reply import Reply

# re.ASCII: without it IGNORECASE lets the Kelvin sign and the long s pass for k and s
_TAG = re.compile(r"<(/?)(think|search|answer)>", re.IGNORECASE | re.ASCII)
_STRICT = {
    ("think", "/think", "search", "/search"),
    ("think", "/think", "answer", "/answer"),
}


def search_action(query: str) -> str:
    """The action that asks for this."""
    return f"<search>{query}</search>"


def answer_action(answer: str) -> str:
    """The action that answers with this."""
    return f"<answer>{answer}</answer>"


def parse_search_reply(text: str) -> Reply:
    """Read one reply. The action is a whole block, `<search>query</search>` or `<answer>text</answer>`, its inner
    text stripped and otherwise as written.

    Strict: white space, one `<think>...</think>`, white space, one such block, white space, nothing else; each tag
    exactly once, any case. A reply that breaks this still acts on best effort: it is cut after the first `</search>`,
    or without one after the first `</answer>`; then the first search block counts, else the first answer block. With
    neither the action is "" and the turn is void.
    """
    tags = list(_TAG.finditer(text))
    names = [(tag.group(1) + tag.group(2)).lower() for tag in tags]
    block = _first_block(names)
    if block is None:
        return Reply("", False, False)
    start, stop = block
    inner = text[tags[start].end() : tags[stop].start()].strip()
    action = search_action(inner) if names[start] == "search" else answer_action(inner)
    return Reply(action, tuple(names) in _STRICT and _nothing_else(text, tags), True)


def _first_block(names: list[str]) -> tuple[int, int] | None:
    """The tags (opening, closing) of the block that acts."""
    for end in ("/search", "/answer"):
        if end in names:
            names = names[: names.index(end) + 1]  # nothing behind the cut acts
            break
    return _first_pair(names, "search") or _first_pair(names, "answer")


def _first_pair(names: list[str], kind: str) -> tuple[int, int] | None:
    start = names.index(kind) if kind in names else len(names)
    return (start, names.index(f"/{kind}", start)) if f"/{kind}" in names[start:] else None


def _nothing_else(text: str, tags: list[re.Match[str]]) -> bool:
    """White space alone before the first tag, between the thought and the block, and after the last tag."""
    edges = [0, *(place for tag in tags for place in tag.span()), len(text)]
    gaps = [text[left:right] for left, right in pairwise(edges)]
    # gaps alternate between text and tags: before, <think>, thought, </think>, between, <block>, inner, </block>, after
    return not (gaps[0] + gaps[4] + gaps[8]).strip()
