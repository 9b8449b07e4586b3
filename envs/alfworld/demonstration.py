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
import re
from dataclasses import dataclass

_PROCESS = {
    "pick_clean_then_place_in_recep": ("clean", "sinkbasin"),
    "pick_heat_then_place_in_recep": ("heat", "microwave"),
    "pick_cool_then_place_in_recep": ("cool", "fridge"),
}
_NAME = re.compile(r"([a-z]+) (\d+)")
HESITATION_LASTS = 0.5
"""Probability that a hesitating turn is followed by another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What the task asks for, by type: `target` object, `parent` receptacle ("" for look_at), `process` verb or ""."""

    task_type: str
    target: str
    parent: str
    process: str
    station: str

    @classmethod
    def of(cls, task_type: str, object_target: str, parent_target: str) -> Goal:
        process, station = _PROCESS.get(task_type, ("", ""))
        return cls(
            task_type=task_type,
            target=object_target.lower(),
            parent=parent_target.lower(),
            process=process,
            station=station,
        )


def _kind(name: str) -> str:
    return name.rsplit(" ", 1)[0]


class Demonstrator:
    """Plays one game. `decide` gives the next command and the thought that leads to it."""

    def __init__(self, goal: Goal, rng: random.Random, detour_rate: float) -> None:
        self.goal = goal
        self.rng = rng
        self.detour_rate = detour_rate
        self.here = ""
        self.holding = ""
        self.processed = False
        self.hesitating = False

    def decide(self, observation: str, admissible: list[str]) -> tuple[str, str]:
        """The next command (one of `admissible`) and its thought."""
        command, plan = self._advance(observation, admissible)
        stay = max(self.detour_rate, HESITATION_LASTS) if self.hesitating else self.detour_rate
        self.hesitating = self.rng.random() < (stay if self.detour_rate > 0 else 0.0)
        if self.hesitating:
            command, thought = self._hesitate(admissible)
        else:
            thought = self._phrase(command, plan, observation)
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
        elif self.goal.process and command.startswith(self.goal.process + " "):
            self.processed = True

    def _advance(self, observation: str, admissible: list[str]) -> tuple[str, str]:
        """The command that a sweeping agent gives here, and the kind of plan behind it."""
        goal = self.goal
        if self.holding and _kind(self.holding) != goal.target:
            for command in admissible:
                if command.startswith("move "):
                    return command, "drop"
        if _kind(self.holding) == goal.target:
            if goal.process and not self.processed:
                for command in admissible:
                    if command.startswith(goal.process + " "):
                        return command, "process"
                return self._go(goal.station, admissible), "carry"
            if not goal.parent:
                for command in admissible:
                    if command.startswith("use "):
                        return command, "use"
                return self._open_or_sweep(admissible), "lamp"
            if _kind(self.here) == goal.parent:
                for command in admissible:
                    if command.startswith("move "):
                        return command, "place"
                for command in admissible:
                    if command == f"open {self.here}":
                        return command, "open"
            return self._go(goal.parent, admissible), "carry"
        if not self.holding and (not goal.parent or _kind(self.here) != goal.parent):
            for command in admissible:
                if command.startswith(f"take {goal.target} "):
                    return command, "take"
        return self._open_or_sweep(admissible), "search"

    def _open_or_sweep(self, admissible: list[str]) -> str:
        if f"open {self.here}" in admissible and not (self.goal.parent and _kind(self.here) == self.goal.parent):
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
        thoughts = [
            "hmm. i am not sure.",
            "wait. maybe i missed something.",
            "hmm. let me check again.",
            "wait. i am not sure what to do.",
        ]
        thought = self.rng.choice(thoughts)
        for extra in ("i should think about it again.", "let me be careful.", "maybe i should look again."):
            if self.rng.random() < 0.35:
                thought += " " + extra
        return command, thought

    def _phrase(self, command: str, plan: str, observation: str) -> str:
        """A thought: what is wanted, the decision, and now and then a restatement that adds nothing."""
        goal, rng = self.goal, self.rng
        place = command[6:] if command.startswith("go to ") else self.here
        wanted = {
            "search": f"i need a {goal.target}.",
            "take": f"here is the {goal.target}.",
            "carry": f"i have the {goal.target}.",
            "lamp": f"i have the {goal.target}. i need a desklamp.",
            "use": "here is the desklamp.",
            "process": f"i can {goal.process} the {goal.target}.",
            "place": f"i am at the {goal.parent}.",
            "open": f"the {goal.parent} is closed.",
            "drop": f"i do not need the {_kind(self.holding)}." if self.holding else "",
        }[plan]
        decision = f"next: go to {place}." if command.startswith("go to ") else f"next: {command}."
        thought = f"{wanted} {decision}"
        restatements = [
            f"so the next step is: {command}.",
            f"yes, {command}.",
            f"i check again: {command}.",
            "that is the right step.",
        ]
        while rng.random() < 0.45 and restatements:
            thought += " " + restatements.pop(rng.randrange(len(restatements)))
        return thought
