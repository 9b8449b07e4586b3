"""The configuration in words: a resolved tree as a TOML recipe, all knobs as a Markdown page.

Owns: how values and sentences are written. Called by `t2po config` and for the copy in the run folder. Must
not know: what a knob does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from controller.config import RunConfig
from controller.knobs import knobs
from controller.queue_address import hidden_password
from envs.settings import Section

_PAGE = """\
# Configuration

A run is described by a TOML recipe (`deploy/recipes/*.toml`, or a file of your own) and `key=value` changes on
the command line: `t2po train alfworld seed=1 tti.enabled=false`. A key that a recipe leaves out has the value of
`algorithm`'s preset ([algorithms.md](algorithms.md)), or else the default below. `t2po config RECIPE` prints the tree
as resolved.

This page is generated: `t2po config --markdown > docs/configuration.md`.
"""


def as_toml(config: RunConfig) -> str:
    """The resolved tree; each knob under its sentence. The text is a recipe that gives the same tree again,
    but for a password in `queue.url`, which is hidden."""
    known = {knob.key: knob for knob in knobs(type(config))}
    blocks = []
    for path, section in _sections(config):
        lines = [f"# {_headline(section)}", *([f"[{path}]"] if path else [])]
        for key, name, value in _values(path, section):
            shown = hidden_password(value) if key == "queue.url" else value
            lines += [f"# {known[key].sentence} [{known[key].allowed}]", f"{name} = {_literal(shown)}"]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def as_markdown() -> str:
    """Every knob with its default, allowed values and sentence; the text of docs/configuration.md."""
    known = {knob.key: knob for knob in knobs(RunConfig)}
    blocks = [_PAGE]
    for path, section in _sections(RunConfig()):
        lines = [f"## {path or 'run'}", "", _headline(section), ""]
        lines += ["| key | default | allowed | meaning |", "|---|---|---|---|"]
        for key, _, value in _values(path, section):
            cells = (f"`{key}`", f"`{_literal(value)}`", known[key].allowed, known[key].sentence)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def _sections(section: Section, path: str = "") -> Iterator[tuple[str, Section]]:
    """The tree's sections with their dotted paths, the outer one first."""
    yield path, section
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from _sections(value, f"{path}.{name}" if path else name)


def _values(path: str, section: Section) -> Iterator[tuple[str, str, Any]]:
    """(dotted key, name, value) of a section's own knobs."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if not isinstance(value, Section):
            yield (f"{path}.{name}" if path else name), name, value


def _headline(section: Section) -> str:
    return (type(section).__doc__ or "").strip().splitlines()[0]


def _literal(value: Any) -> str:
    """A value in TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML escapes as JSON does, and DEL
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    raise TypeError(f"a knob holds a {type(value).__name__}, which TOML has no form for: give it another type")
