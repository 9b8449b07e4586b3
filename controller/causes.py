"""What a failure was, in one line, whatever it came wrapped in.

Owns: `innermost`, `cause_of`. Called wherever the controller reports a failure. Must not know: who failed.
"""

from __future__ import annotations


def innermost(error: BaseException) -> BaseException:
    """The first failure inside exception groups: what a person has to know."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def cause_of(error: BaseException) -> str:
    """What something died of, in one line: exception groups and Ray's own wrapping left out."""
    inner = innermost(error)
    inner = getattr(inner, "cause", None) or inner
    lines = [line for line in str(inner).strip().splitlines() if line.strip()]
    return f"{type(inner).__name__}: {lines[-1].strip() if lines else ''}"
