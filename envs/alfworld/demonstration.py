"""Demonstrations for the cold start: a sweeping agent that thinks aloud, and sometimes hesitates.

Owns: what the demonstrator does in a turn and how it puts that into a thought. Called by
`controller.coldstart`. Must not know: tokenizers, models, or how the demonstrations are trained on.

The demonstrator decides only from what the policy will see: the goal, the current observation and the
admissible commands (it sweeps the receptacles in their listed order, from wherever it stands), so that
everything it does can be learned from the prompt. It is deliberately imperfect: with probability
`detour_rate` a turn hesitates (looks around, checks its pockets, wanders off), a hesitation tends to
last, and thoughts restate and re-check. That is the hesitation that T2PO removes (METHOD section 1).
"""

from __future__ import annotations

import random

from envs.alfworld.expert import Wish
from envs.alfworld.floorplans import tables
from envs.hesitation import Hesitation

_STATION = {"clean": "sinkbasin", "heat": "microwave", "cool": "fridge"}


def _kind(name: str) -> str:
    return name.rsplit(" ", 1)[0]


class Demonstrator:
    """Plays one game. `decide` gives the next command and the thought that leads to it."""

    def __init__(self, wish: Wish, rng: random.Random, detour_rate: float) -> None:
        self.wish = wish
        self.rng = rng
        self.hesitation = Hesitation(rng, detour_rate)
        self.here = ""
        self.holding = ""
        self.processed = False
        self.plan = ""
        """What the last decision was for: hesitate, search, lamp, take, carry, open, process, use, place or drop."""

    def decide(self, admissible: list[str]) -> tuple[str, str]:
        """The next command (one of `admissible`) and its thought."""
        command, self.plan = self._advance(admissible)
        if self.hesitation.strikes():
            self.plan = "hesitate"
            command, thought = self._hesitate(admissible)
        else:
            thought = self._phrase(command, self.plan)
        self._follow(command)
        return command, thought

    def _follow(self, command: str) -> None:
        if command.startswith("go to "):
            self.here = command[6:]
        elif command.startswith("take "):
            self.holding = command[5:].split(" from ")[0]
            self.processed = False
        elif command.startswith("move "):
            self.holding = ""
        elif self.wish.treatment and command.startswith(self.wish.treatment + " "):
            self.processed = True

    def _advance(self, admissible: list[str]) -> tuple[str, str]:
        """The command that a sweeping agent gives here, and the kind of plan behind it."""
        wish = self.wish
        if self.holding and _kind(self.holding) != wish.target:
            for command in admissible:
                if command.startswith("move "):
                    return command, "drop"
        if _kind(self.holding) == wish.target:
            if wish.treatment and not self.processed:
                for command in admissible:
                    if command.startswith(wish.treatment + " "):
                        return command, "process"
                return self._go(_STATION[wish.treatment], admissible), "carry"
            if not wish.parent:
                for command in admissible:
                    if command.startswith("use "):
                        return command, "use"
                return self._open_or_sweep(admissible), "lamp"
            if _kind(self.here) == wish.parent:
                for command in admissible:
                    if command.startswith("move "):
                        return command, "place"
                for command in admissible:
                    if command == f"open {self.here}":
                        return command, "open"
            return self._go(wish.parent, admissible), "carry"
        if not self.holding and not self._settled():
            for command in admissible:
                if command.startswith(f"take {wish.target} "):
                    return command, "take"
        return self._open_or_sweep(admissible), "search"

    def _settled(self) -> bool:
        """Whether what lies here may stay: it is where the goal wants it, as far as can be seen."""
        return bool(self.wish.parent) and _kind(self.here) == self.wish.parent and not self.wish.treatment

    def _open_or_sweep(self, admissible: list[str]) -> str:
        if f"open {self.here}" in admissible and not self._settled():
            return f"open {self.here}"
        places = [command[6:] for command in admissible if command.startswith("go to ")]
        after = [place for place in places if place > self.here]
        return f"go to {(after or places)[0]}"

    def _go(self, kind: str, admissible: list[str]) -> str:
        for command in admissible:
            if command.startswith(f"go to {kind} "):
                return command
        return self._open_or_sweep(admissible)

    def _hesitate(self, admissible: list[str]) -> tuple[str, str]:
        void = [c for c in admissible if c in ("look", "inventory") or c.startswith("examine ")]
        other = [c for c in admissible if c not in void]
        command = self.rng.choice(void if void and self.rng.random() < 0.6 else other or void)
        return command, self.hesitation.thought("wait. i am not sure what to do.")

    def _phrase(self, command: str, plan: str) -> str:
        """A thought: how matters stand, the decision, and now and then a restatement that adds nothing.

        The thing that matters comes right before what is said of it: a small model finds a thing in the list of
        commands by the word that it has just written.
        """
        wish = self.wish
        target = wish.target
        goal = _STATION[wish.treatment] if wish.treatment and not self.processed else wish.parent
        standing = {
            "search": f"{target} not here.",
            "take": f"{target} is here.",
            "carry": f"{target} in hand. to {goal}.",
            "lamp": f"{target} in hand. {wish.lamp} not here.",
            "use": f"{target} in hand. {wish.lamp} is here.",
            "process": f"{target} in hand. to {wish.treatment}.",
            "place": f"{target} in hand. {wish.parent} is here.",
            "open": f"{target} in hand. {wish.parent} is closed.",
            "drop": f"{_kind(self.holding)} in hand. that is wrong." if self.holding else "",
        }[plan]
        thought = f"{standing} next: {command}."
        restatements = [
            f"so the next step is: {command}.",
            f"yes, {command}.",
            f"i check again: {command}.",
            "that is the right step.",
        ]
        return self.hesitation.restated(thought, restatements, 0.45)


def type_names() -> list[str]:
    """Every receptacle and object type as observations spell it: words that deserve a token of their own."""
    holds = tables().can_contain
    kinds = {"DeskLamp", "FloorLamp", *holds}.union(*holds.values())
    return sorted(kind.lower() for kind in kinds)
