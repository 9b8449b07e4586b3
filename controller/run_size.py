"""How many actors of each kind a run shall have.

Owns: `Size`, and what makes one impossible. Called by whoever asks for one or makes it so. Must not know: who that is.
"""

from __future__ import annotations

from dataclasses import dataclass


class ScaleError(ValueError):
    """What cannot be; the message names the value and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How many of each; None: as many as there are."""

    envs: int | None = None
    inference: int | None = None
    learners: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("envs", self.envs), ("inference", self.inference), ("learners", self.learners)):
            if value is not None and value < 1:
                raise ScaleError(f"{name} = {value}: at least 1 is needed for the run to go on")
