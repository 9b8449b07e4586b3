"""How a demonstrator hesitates: now and then, a few turns in a row, in words that say nothing.

Owns: `Hesitation`. Called by the environments' demonstrators. Must not know: what a hesitating agent does instead.

The cold start teaches it on purpose: it is what T2PO removes (METHOD section 1), and a policy that never hesitates has
nothing to show.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

LASTS = 0.5
"""Probability that a hesitating turn is followed by another one."""
_EXTRAS = ("i should think about it again.", "let me be careful.", "maybe i should look again.")


class Hesitation:
    """One agent's. `rate`: probability that a turn hesitates when the one before did not; 0 is never."""

    def __init__(self, rng: random.Random, rate: float) -> None:
        self._rng = rng
        self._rate = rate
        self._going_on = False

    def strikes(self) -> bool:
        """Whether this turn hesitates; asked once a turn."""
        stay = max(self._rate, LASTS) if self._going_on else self._rate
        self._going_on = self._rng.random() < (stay if self._rate > 0 else 0.0)
        return self._going_on

    def thought(self, last_doubt: str) -> str:
        """What it thinks meanwhile: one of four doubts, of which the environment words the last, and perhaps more."""
        doubts = ("hmm. i am not sure.", "wait. maybe i missed something.", "hmm. let me check again.", last_doubt)
        thought = self._rng.choice(doubts)
        for extra in _EXTRAS:
            if self._rng.random() < 0.35:
                thought += " " + extra
        return thought

    def restated(self, thought: str, restatements: Sequence[str], share: float) -> str:
        """A thought, now and then followed by a few that add nothing to it."""
        left = list(restatements)
        while self._rng.random() < share and left:
            thought += " " + left.pop(self._rng.randrange(len(left)))
        return thought
