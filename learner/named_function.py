"""A function that a knob names: a built-in one, or `module:function` for one of the user's own.

Owns: `check_name`, `find_function` and their error. Called by `learner.advantages.registry`, `learner.losses.registry`
and, for the name alone, by `learner.settings`. Must not know: what the functions do.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from envs.data_folder import DataError


class UnknownFunction(DataError):
    """A name that leads to no function; the message says what names there are."""


def check_name(kind: str, name: str, built_in: Mapping[str, str]) -> str:
    """`name` itself when it is built in or has the form `module:function`; nothing is imported. UnknownFunction."""
    module, colon, attribute = name.partition(":")
    if name in built_in or (colon and module and attribute):
        return name
    close = difflib.get_close_matches(name, built_in, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}? " if close else ""
    raise UnknownFunction(f"{kind} {name!r} is unknown: {hint}{_known(built_in)}")


def find_function(kind: str, name: str, built_in: Mapping[str, str], num_arguments: int) -> Callable[..., Any]:
    """The function of this name, which can be called with `num_arguments` positional arguments. UnknownFunction.

    `built_in` gives each name its `module:function`, so that nothing is imported before it is asked for.
    """
    check_name(kind, name, built_in)
    module, _, attribute = built_in.get(name, name).partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UnknownFunction(f"{kind} {name!r} cannot be loaded ({error}): {_known(built_in)}") from error
    if not callable(found):
        raise UnknownFunction(f"{kind} {name!r} is a {type(found).__name__}, not a function")
    try:
        inspect.signature(found).bind(*[None] * num_arguments)
    except (TypeError, ValueError) as error:
        raise UnknownFunction(f"{kind} {name!r} cannot be called with {num_arguments} arguments: {error}") from error
    return found  # type: ignore[no-any-return]


def _known(built_in: Mapping[str, str]) -> str:
    return f"use {', '.join(sorted(built_in))}, or module:function for one of your own"
