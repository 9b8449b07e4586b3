"""The search expert: plays an ALFWorld game from what the agent has seen, and says why.

Owns: understanding the task sentence (`read_task`) and `SearchExpert`, which searches the room in the listed
order. Called by `suite`, the demonstrations and the tests. Must not know: the engine's state, prompts, thoughts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from envs.alfworld.engine import TASK_PREFIX
from envs.data_folder import DataError

_VERB_OF = {"clean": "clean", "hot": "heat", "heat": "heat", "cool": "cool"}
_STATION = {"clean": "sinkbasin", "heat": "microwave", "cool": "fridge"}


@dataclass(frozen=True, slots=True)
class Wish:
    """The task sentence, understood. `treatment` is "", clean, heat or cool; `lamp` is "" unless to look at."""

    target: str
    parent: str = ""
    treatment: str = ""
    count: int = 1
    lamp: str = ""


_SENTENCES = (
    r"look at (?P<target>\w+) under the (?P<lamp>\w+)",
    r"examine the (?P<target>\w+) with the (?P<lamp>\w+)",
    r"(?:put|find) (?P<two>two) (?P<target>\w+) (?:in|and put them in) (?P<parent>\w+)",
    r"put a (?P<treat>clean|hot|cool) (?P<target>\w+) in (?P<parent>\w+)",
    r"(?P<treat>clean|heat|cool) some (?P<target>\w+) and put it in (?P<parent>\w+)",
    r"put (?:a|some) (?P<target>\w+) (?:in|on) (?P<parent>\w+)",
)


def read_task(sentence: str) -> Wish:
    """Understand a task sentence in any of the twelve published wordings."""
    for pattern in _SENTENCES:
        match = re.fullmatch(pattern, sentence.strip().rstrip("."))
        if match:
            part = match.groupdict()
            treatment = _VERB_OF.get(part.get("treat") or "", "")
            count = 2 if part.get("two") else 1
            return Wish(part["target"], part.get("parent") or "", treatment, count, part.get("lamp") or "")
    raise DataError(f"task sentence {sentence!r} has none of the published wordings: the search expert cannot read it")


@dataclass(frozen=True, slots=True)
class Decision:
    """The next command and why: a tag (search, open, fetch, take, carry, clean, heat, cool, use, place, drop,
    look) followed by the names it is about."""

    command: str
    reason: tuple[str, ...]


@dataclass(slots=True)
class _Belief:
    """What the observations so far have shown."""

    holding: str = ""
    contents: dict[str, list[str]] = field(default_factory=dict)
    treated: dict[str, set[str]] = field(default_factory=dict)
    came_from: dict[str, str] = field(default_factory=dict)


_SEEN = re.compile(r"(?:On the ([a-z]+ \d+)|The ([a-z]+ \d+) is open\. In it), you see ([^.]*)\.")
_PICKED = re.compile(r"You pick up the ([a-z]+ \d+) from the ([a-z]+ \d+)\.")
_MOVED = re.compile(r"You move the ([a-z]+ \d+) to the ([a-z]+ \d+)\.")
_TREATED = re.compile(r"You (clean|heat|cool) the ([a-z]+ \d+) using the [a-z]+ \d+\.")
_THING = re.compile(r"a ([a-z]+ \d+)")


def _kind(name: str) -> str:
    return name.split(" ", 1)[0]


class SearchExpert:
    """Plays from observations alone. Feed it everything the environment says through `see`; ask `decide`.

    It copes with detours: commands that someone else chose are seen like its own.
    """

    def __init__(self, opening: str) -> None:
        if TASK_PREFIX not in opening:
            raise DataError(f"opening text without {TASK_PREFIX!r}: pass the observation that reset gives")
        room, task = opening.rsplit(TASK_PREFIX, 1)
        self.wish = read_task(task)
        self.receptacles = sorted(_THING.findall(room))
        self._belief = _Belief()

    def see(self, observation: str) -> None:
        """Take in what the environment answered to the last command, whoever chose it."""
        belief = self._belief
        for on, inside, listed in _SEEN.findall(observation):
            belief.contents[on or inside] = _THING.findall(listed)
        if match := _PICKED.match(observation):
            item, place = match.groups()
            belief.holding, belief.came_from[item] = item, place
            if item in belief.contents.get(place, []):
                belief.contents[place].remove(item)
        elif match := _MOVED.match(observation):
            item, place = match.groups()
            belief.holding = ""
            belief.contents.setdefault(place, []).append(item)
        elif match := _TREATED.match(observation):
            verb, item = match.groups()
            undone = {"heat": "cool", "cool": "heat"}.get(verb, "")
            belief.treated.setdefault(item, set()).add(verb)
            belief.treated[item].discard(undone)

    def decide(self, admissible: Iterable[str]) -> Decision:
        """The next command. Always one of `admissible`."""
        can = list(admissible)
        held, wish = self._belief.holding, self.wish
        if held and _kind(held) != wish.target:
            return self._drop(held, can)
        if not held:
            return self._seek(wish.target, can, self._loose())
        if wish.lamp:
            lamps = [(o, r) for r, items in self._belief.contents.items() for o in items if _kind(o) == wish.lamp]
            for lamp, _ in lamps:
                if f"use {lamp}" in can:
                    return Decision(f"use {lamp}", ("use", lamp, held))
            if not lamps:
                return self._search(wish.lamp, can)
            return self._approach(lamps[0][1], ("carry", held, lamps[0][1]), can)
        if wish.treatment and wish.treatment not in self._belief.treated.get(held, ()):
            station = next((r for r in self.receptacles if _kind(r) == _STATION[wish.treatment]), "")
            command = f"{wish.treatment} {held} with {station}"
            if command in can:
                return Decision(command, (wish.treatment, held, station))
            return self._approach(station, ("carry", held, station), can)
        return self._place(held, self._destination(can), ("carry", "place"), can)

    def _destination(self, can: list[str]) -> str:
        """The parent receptacle that holds most of what is wanted; else one that is here; else the first listed."""
        parents = [r for r in self.receptacles if _kind(r) == self.wish.parent]
        if not parents:
            return ""
        gathered = {r: sum(self._counts(o) for o in self._belief.contents.get(r, [])) for r in parents}
        return min(parents, key=lambda r: (-gathered[r], f"go to {r}" in can, parents.index(r)))

    def _counts(self, item: str) -> bool:
        treatment = self.wish.treatment
        ready = not treatment or treatment in self._belief.treated.get(item, ())
        return ready and _kind(item) == self.wish.target

    def _loose(self) -> list[tuple[str, str]]:
        """Known (target, receptacle) that still have to be fetched."""
        settled = self._destination([]) if self.wish.count > 1 else ""
        return [
            (o, r)
            for r, items in self._belief.contents.items()
            for o in items
            if _kind(o) == self.wish.target and not (r == settled and self._counts(o))
        ]

    def _seek(self, target: str, can: list[str], known: list[tuple[str, str]]) -> Decision:
        known = sorted(known, key=lambda pair: f"go to {pair[1]}" in can)  # what is here comes first
        if not known:
            return self._search(target, can)
        item, place = known[0]
        if f"take {item} from {place}" in can:
            return Decision(f"take {item} from {place}", ("take", item, place))
        if f"open {place}" in can:
            return Decision(f"open {place}", ("open", place, target))
        return self._approach(place, ("fetch", item, place), can)

    def _search(self, target: str, can: list[str]) -> Decision:
        unseen = [r for r in self.receptacles if r not in self._belief.contents]
        for place in unseen:  # standing in front of something unseen
            if f"go to {place}" not in can:
                if f"open {place}" in can:
                    return Decision(f"open {place}", ("open", place, target))
                if f"examine {place}" in can:
                    return Decision(f"examine {place}", ("search", target, place))
        for place in unseen:
            if f"go to {place}" in can:
                return Decision(f"go to {place}", ("search", target, place))
        self._belief.contents.clear()  # everything was seen and nothing found: look at it all again
        return Decision("look", ("look", target))

    def _place(self, item: str, place: str, tags: tuple[str, str], can: list[str]) -> Decision:
        if f"move {item} to {place}" in can:
            return Decision(f"move {item} to {place}", (tags[1], item, place))
        if f"open {place}" in can:
            return Decision(f"open {place}", ("open", place, item))
        return self._approach(place, (tags[0], item, place), can)

    def _drop(self, item: str, can: list[str]) -> Decision:
        for place in self.receptacles:
            if f"move {item} to {place}" in can:
                return Decision(f"move {item} to {place}", ("drop", item, place))
        return self._place(item, self._belief.came_from.get(item, ""), ("drop", "drop"), can)

    def _approach(self, place: str, reason: tuple[str, ...], can: list[str]) -> Decision:
        command = f"go to {place}"
        return Decision(command, reason) if command in can else Decision("look", ("look", self.wish.target))
