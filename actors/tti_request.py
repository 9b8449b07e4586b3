"""What one request asks of TTI: `SamplingParams.extra_args["t2po"]`.

Owns: the names, defaults and limits of the settings a request may bring, `RequestRefused`. Called by
`actors.tti_processor` (front end: validation; engine: admission), `actors.candidate` and `actors.inference`. Must not
know: rows, tensors, tokenizers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from actors.think_markers import DEFAULT_QUEUE

if TYPE_CHECKING:
    from vllm import SamplingParams

EXTRA_ARGS_KEY = "t2po"
EMPTY_RANGE = (math.inf, -math.inf, math.inf, -math.inf)


class RequestRefused(ValueError):
    """A request that no engine can answer as it is: asking again, or another engine, cannot help."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """The settings of one request; the numbers mean what they mean in `actors.settings.TTISettings`.

    `id`, unique among live requests, is what its statistics are asked for by; `tti` False: measured, never forced;
    `range` is [entropy min, max, confidence min, max] carried from earlier turns, null: none; `queue` is the text that
    ends a thought; `starts_inside`: the prompt ends with the opening marker.
    """

    id: str
    tti: bool = True
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
        problems = [
            f"{name} = {getattr(self, name)!r} must be {rule}"
            for name, rule, good in (
                ("id", "a text that is not empty", isinstance(self.id, str) and self.id != ""),
                ("range", "4 numbers or null", self.range is None or len(self.range) == 4),
                ("alpha", "from 0 to 1", 0 <= self.alpha <= 1),
                ("epsilon", "at least 0", self.epsilon >= 0),
                ("window", "from 1 to 1000", 1 <= self.window <= 1000),
                ("min_tokens", "at least 1", self.min_tokens >= 1),
                ("think_cap", "at least 1", self.think_cap >= 1),
                ("top_j", "at least 1", self.top_j >= 1),
            )
            if not good
        ]
        if problems:
            raise ValueError(f"extra_args[{EXTRA_ARGS_KEY!r}]: {'; '.join(problems)}")

    @classmethod
    def of(cls, params: SamplingParams) -> Request | None:
        asked = (params.extra_args or {}).get(EXTRA_ARGS_KEY)
        if asked is None:
            return None
        known = {f.name for f in fields(cls)}
        if not isinstance(asked, dict) or "id" not in asked or not set(asked) <= known:
            raise ValueError(f"extra_args[{EXTRA_ARGS_KEY!r}] = {asked!r}: needs id, may have {sorted(known - {'id'})}")
        return cls(**asked)
