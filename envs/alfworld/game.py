"""One parsed ALFWorld game: names, places, what fits and can be done, all numbered, nothing that changes.

Owns: `Game`, and the names that TextWorld gives to things. Called by `engine`, `planner`, `games`, `suite`.
Must not know: what a command does or says.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from envs.alfworld.pddl import LightGoal, PlaceGoal, parse_problem
from envs.data_folder import DataError

AFFORDANCES = ("pickupable", "cleanable", "heatable", "coolable", "toggleable", "sliceable", "isreceptacleobject")


def _name_entities(ids: list[str]) -> dict[str, str]:
    """`cabinet 3` for each mangled id: within a base word the first id in order gets the highest number."""
    bases = {i: i.split("_bar_", 1)[0] + ("basin" if "basin" in i else "") for i in ids if "_bar_" in i}
    left = Counter(bases.values())
    names = {}
    for entity in ids:
        if entity in bases:
            names[entity] = f"{bases[entity]} {left[bases[entity]]}"
            left[bases[entity]] -= 1
        else:
            names[entity] = f"{entity} "
    return names


class Game:
    """One parsed problem with its task sentence. Nothing in it changes, so any number of engines may share it.

    Objects, receptacles and locations are numbered in the order of their ids, which is the order of every list
    the game prints.
    """

    def __init__(self, problem: str, task: str) -> None:
        parsed = parse_problem(problem)
        facts: dict[str, set[tuple[str, ...]]] = defaultdict(set)
        for name, *arguments in parsed.facts:
            facts[name].add(tuple(arguments))
        ids = sorted({argument for rows in facts.values() for row in rows for argument in row})
        names = _name_entities(ids)
        self.task = task
        self.goal: PlaceGoal | LightGoal = parsed.goal
        object_types = _mapping(facts["objecttype"], "objectType")
        receptacle_types = _mapping(facts["receptacletype"], "receptacleType")
        locations = _mapping(facts["receptacleatlocation"], "receptacleAtLocation")
        if not locations or len(facts["atlocation"]) != 1:
            raise DataError("PDDL :init has no receptacle location or not exactly one atLocation: fetch the game again")
        object_ids = [i for i in ids if i in object_types]
        receptacle_ids = [i for i in ids if i in locations]
        obj = {entity: index for index, entity in enumerate(object_ids)}
        rec = {entity: index for index, entity in enumerate(receptacle_ids)}
        start = next(iter(facts["atlocation"]))[1]
        loc = {entity: index for index, entity in enumerate(sorted(set(locations.values()) | {start}))}

        self.objects = tuple(names[i] for i in object_ids)
        self.receptacles = tuple(names[i] for i in receptacle_ids)
        self.object_type = tuple(object_types[i] for i in object_ids)
        self.receptacle_type = tuple(receptacle_types.get(i, "") for i in receptacle_ids)
        self.openable = tuple((i,) in facts["openable"] for i in receptacle_ids)
        self.start = loc[start]
        self.location_of = tuple(loc[locations[i]] for i in receptacle_ids)
        self.at_location = tuple(
            tuple(r for r, place in enumerate(self.location_of) if place == here) for here in range(len(loc))
        )
        self.affords = {name: frozenset(obj[row[0]] for row in facts[name] if row[0] in obj) for name in AFFORDANCES}
        contains = facts["cancontain"]
        pairs = {(r, o) for r in set(self.receptacle_type) for o in set(self.object_type) if (r, o) in contains}
        self.accepts = frozenset(pairs)
        nested = sorted((obj[o], obj[i]) for i, o in facts["inreceptacleobject"] if i in obj and o in obj)
        self.nested = {outer: [i for o, i in nested if o == outer] for outer, _ in nested}
        inside = sorted((rec[r], obj[o]) for o, r in facts["inreceptacle"] if o in obj and r in rec)
        self.first_contents = tuple(tuple(o for r, o in inside if r == index) for index in range(len(rec)))
        self.first_flags = {
            name: frozenset(obj[row[0]] for row in facts[name] if row[0] in obj)
            for name in ("isclean", "ishot", "iscool", "issliced", "istoggled")
        }
        self.first_opened = frozenset(rec[row[0]] for row in facts["opened"] if row[0] in rec)
        self.first_places = frozenset((obj[o], loc[p]) for o, p in facts["objectatlocation"] if o in obj and p in loc)
        held = [obj[row[1]] for row in facts["holds"] if row[1] in obj]
        self.first_held = held[0] if held else -1
        self.go_commands = tuple(
            {f"go to {name}": r for r, name in enumerate(self.receptacles) if self.location_of[r] != here}
            for here in range(len(loc))
        )
        target = self.goal.object_type
        self.goal_objects = frozenset(o for o, kind in enumerate(self.object_type) if kind == target)
        if isinstance(self.goal, PlaceGoal):
            wanted = [flag for flag in self.goal.flags if flag in self.affords]
            self.goal_objects = frozenset(o for o in self.goal_objects if all(o in self.affords[f] for f in wanted))
            kind = self.goal.receptacle_type
            self.goal_receptacles = tuple(r for r, each in enumerate(self.receptacle_type) if each == kind)
        else:
            self.goal_receptacles = ()


def _mapping(rows: set[tuple[str, ...]], predicate: str) -> dict[str, str]:
    pairs = {row[0]: row[1] for row in rows if len(row) == 2}
    if len(pairs) != len(rows):
        raise DataError(f"PDDL :init gives two values of {predicate} to one thing: the file is damaged, fetch it again")
    return pairs
