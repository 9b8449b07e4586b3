"""The knobs of a configuration tree: keys, sentences, allowed values.

Owns: walking a tree of sections. Called by `controller.config` for error texts and by `controller.config_text`.
Must not know: any particular knob.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from envs.settings import Section

_SIGNS = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
_KINDS = {bool: "true, false", int: "whole number", float: "number", str: "text"}


@dataclass(frozen=True, slots=True)
class Knob:
    """`key` is dotted; `allowed` says which values it takes: `"a", "b"` or `whole number ≥ 1, ≤ 64`."""

    key: str
    sentence: str
    allowed: str


def knobs(model: type[Section], prefix: str = "") -> Iterator[Knob]:
    """Every knob below `model`, in the order in which they are declared."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            yield from knobs(inner, f"{prefix}{name}.")
        else:
            yield Knob(prefix + name, field.description or "", _allowed(field))


def _allowed(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(json.dumps(choice) for choice in get_args(field.annotation))
    if get_origin(field.annotation) is tuple:
        return f"list of {', '.join(json.dumps(choice) for choice in get_args(get_args(field.annotation)[0]))}"
    bounds = []
    for attribute, sign in _SIGNS:
        bounds += [f"{sign} {getattr(item, attribute)}" for item in field.metadata if hasattr(item, attribute)]
    kind = _KINDS.get(field.annotation, "") if isinstance(field.annotation, type) else ""
    return " ".join(part for part in (kind, ", ".join(bounds)) if part)
