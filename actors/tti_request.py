"""What one request asks of TTI: the keys `t2po_…` of `SamplingParams.extra_args` (OpenAI API: `vllm_xargs`).

Owns: the names, defaults and limits of the settings a request may bring, `RequestRefused`. Called by
`actors.tti_plugin` (front end: validation; engine: admission), `actors.candidate` and `actors.inference`. Must not
know: rows, tensors, tokenizers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, get_args

from actors.settings import Signal, TTIVariant
from actors.think_markers import DEFAULT_QUEUE, THINK_CLOSE

PREFIX = "t2po_"
EMPTY_RANGE = (math.inf, -math.inf, math.inf, -math.inf)


class RequestRefused(ValueError):
    """A request that no engine can answer as it is: asking again, or another engine, cannot help."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """The settings of one request; the numbers mean what they mean in `actors.settings.TTISettings`.

    `id`, unique among live requests, is what its statistics are asked for by; null: nobody asks. `range` is [entropy
    min, max, confidence min, max] carried from earlier turns, null: none; `queue` is the text that ends a thought;
    `starts_inside`: the prompt ends with the opening marker. `tti` "off": measured, never forced.
    """

    id: str | None = None
    tti: TTIVariant = "paper"
    signal: Signal = "paper"
    range: Sequence[float] | None = None
    alpha: float = 0.4
    epsilon: float = 0.05
    window: int = 3
    min_tokens: int = 6
    think_cap: int = 40
    top_j: int = 20
    queue: str = DEFAULT_QUEUE
    starts_inside: bool = False

    def __post_init__(self) -> None:
        def number(name: str, low: float, high: float = math.inf, whole: bool = False) -> bool:
            value = getattr(self, name)
            return isinstance(value, (int, float)) and low <= value <= high and (not whole or value == int(value))

        rules = (
            ("id", "a text that is not empty, or left out", self.id is None or (isinstance(self.id, str) and self.id)),
            ("tti", f"one of {get_args(TTIVariant)}", self.tti in get_args(TTIVariant)),
            ("signal", f"one of {get_args(Signal)}", self.signal in get_args(Signal)),
            ("range", "4 numbers, or left out", self.range is None or _four_numbers(self.range)),
            ("alpha", "from 0 to 1", number("alpha", 0, 1)),
            ("epsilon", "at least 0", number("epsilon", 0)),
            ("window", "a whole number from 1 to 1000", number("window", 1, 1000, whole=True)),
            ("min_tokens", "a whole number, at least 1", number("min_tokens", 1, 1e9, whole=True)),
            ("think_cap", "a whole number, at least 1", number("think_cap", 1, 1e9, whole=True)),
            ("top_j", "a whole number from 1 to 1000", number("top_j", 1, 1000, whole=True)),
            ("queue", f"a text with {THINK_CLOSE}", isinstance(self.queue, str) and THINK_CLOSE in self.queue),
            ("starts_inside", "true or false (or 1 or 0)", self.starts_inside in (True, False)),
        )
        problems = [
            f"{PREFIX}{name} = {getattr(self, name)!r} must be {rule}" for name, rule, good in rules if not good
        ]
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def m_alpha(self) -> float:
        """The α that gives this signal: entropy and confidence alone are the paper's M with α = 1 and α = 0."""
        return {"entropy": 1.0, "confidence": 0.0}.get(self.signal, float(self.alpha))

    @property
    def m_epsilon(self) -> float:
        """The ε that gives this variant; negative: the cap alone, whatever the signal."""
        return -1.0 if self.tti == "budget" else float(self.epsilon)

    @classmethod
    def of(cls, extra_args: Mapping[str, Any] | None) -> Request | None:
        """None when there is no key of ours. ValueError names each key that cannot be used."""
        asked = {key: value for key, value in (extra_args or {}).items() if key.startswith(PREFIX)}
        if not asked:
            return None
        known = {PREFIX + field.name: field.name for field in fields(cls)}
        unknown = sorted(set(asked) - set(known))
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: unknown; the keys are {', '.join(known)}")
        return cls(**{known[key]: value for key, value in asked.items()})

    def extra_args(self) -> dict[str, Any]:
        """The keys that `of` makes this request from."""
        return {PREFIX + name: value for name, value in asdict(self).items() if value is not None}


def _four_numbers(value: Any) -> bool:
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    return is_list and len(value) == 4 and all(isinstance(part, (int, float)) for part in value)
