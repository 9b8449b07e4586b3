"""What an environment answered, checked: its types, its reward, and texts that no prompt could hold.

Owns: `Answer`, `after_reset`, `after_step`. Called by `actors.rollout` with whatever a `TextEnv` returned. Must not
know: which environment it is, turns, prompts.

An answer of the wrong form is a failure that names what is wrong. One that is only too long is cut and played on: the
middle is left out, because what matters stands at either end, and the Turn says how much (`observation_cut`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any


class BadAnswer(ValueError):
    """The environment's answer is not what gymnasium's signatures promise; the message names the part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`cut`: characters of the observation that were left out."""

    observation: str
    cut: int
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    info: dict[str, Any]


def after_reset(answer: Any, longest: int) -> Answer:
    """Of `env.reset`: (observation, info). `longest`: characters that an observation may have. Raises BadAnswer."""
    observation, info = _parts(answer, ("observation", "info"))
    text, cut = _text(observation, longest)
    return Answer(observation=text, cut=cut, info=_info(info))


def after_step(answer: Any, longest: int) -> Answer:
    """Of `env.step`: (observation, reward, terminated, truncated, info). Raises BadAnswer."""
    observation, reward, terminated, truncated, info = _parts(
        answer, ("observation", "reward", "terminated", "truncated", "info")
    )
    if not isinstance(reward, Real) or not math.isfinite(reward):
        raise BadAnswer(f"reward {_shown(reward)} is not a finite number")
    text, cut = _text(observation, longest)
    return Answer(
        observation=text, cut=cut, reward=float(reward), terminated=bool(terminated), truncated=bool(truncated),
        info=_info(info),
    )  # fmt: skip


def _parts(answer: Any, names: tuple[str, ...]) -> tuple[Any, ...]:
    if not isinstance(answer, tuple) or len(answer) != len(names):
        raise BadAnswer(f"answer {_shown(answer)} is not a tuple ({', '.join(names)})")
    return answer


def _info(info: Any) -> dict[str, Any]:
    if not isinstance(info, dict):
        raise BadAnswer(f"info {_shown(info)} is not a dict")
    return info


def _text(observation: Any, longest: int) -> tuple[str, int]:
    """-> (what stands for it, characters left out). Halves of surrogate pairs, which no encoding has, become "?"."""
    if not isinstance(observation, str):
        raise BadAnswer(f"observation {_shown(observation)} is not a str")
    cut = max(0, len(observation) - longest)
    if cut:
        head = longest // 2
        observation = observation[:head] + observation[len(observation) - (longest - head) :]
    return observation.encode("utf-8", "replace").decode("utf-8"), cut


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text[:80]}{'...' if len(text) > 80 else ''} ({type(value).__name__})"
