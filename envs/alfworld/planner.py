"""The planner expert: knows everything, solves every game; the check of a game and the upper bound of play.

Owns: `plan`. Called by `suite`, `check`, `differential` and the tests. Must not know: observations, prompts.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import permutations

from envs.alfworld.engine import Engine
from envs.alfworld.pddl import LightGoal

TREATMENT = {"isclean": ("clean", "sinkbasin"), "ishot": ("heat", "microwave"), "iscool": ("cool", "fridge")}


class _Draft:
    """A plan under construction: the commands so far and what they change, without touching the engine."""

    def __init__(self, engine: Engine) -> None:
        self.game = engine.game
        self.here = engine.here
        self.opened = set(engine.opened)
        self.commands: list[str] = []

    def go(self, r: int) -> None:
        if self.game.location_of[r] != self.here:
            self.commands.append(f"go to {self.game.receptacles[r]}")
            self.here = self.game.location_of[r]

    def reach(self, r: int) -> None:
        self.go(r)
        if self.game.openable[r] and r not in self.opened:
            self.commands.append(f"open {self.game.receptacles[r]}")
            self.opened.add(r)

    def take(self, o: int, r: int) -> None:
        self.reach(r)
        self.commands.append(f"take {self.game.objects[o]} from {self.game.receptacles[r]}")

    def move(self, o: int, r: int) -> None:
        self.reach(r)
        self.commands.append(f"move {self.game.objects[o]} to {self.game.receptacles[r]}")

    def treat(self, o: int, flag: str) -> bool:
        verb, station = TREATMENT[flag]
        stations = [r for r, kind in enumerate(self.game.receptacle_type) if kind == f"{station}type"]
        if not stations:
            return False
        here = [r for r in stations if self.game.location_of[r] == self.here]
        self.go((here or stations)[0])
        self.commands.append(f"{verb} {self.game.objects[o]} with {self.game.receptacles[(here or stations)[0]]}")
        return True

    def use(self, o: int, r: int) -> None:
        self.go(r)
        self.commands.append(f"use {self.game.objects[o]}")


def plan(engine: Engine) -> list[str] | None:
    """The shortest of the obvious ways to the goal from the engine's present state; None when there is none."""
    if engine.won():
        return []
    drafts = _light_drafts(engine) if isinstance(engine.game.goal, LightGoal) else _place_drafts(engine)
    plans = [draft.commands for draft in drafts]
    return min(plans, key=len) if plans else None


def _sources(engine: Engine, objects: Iterable[int]) -> list[tuple[int, int]]:
    """(object, receptacle) for everything of `objects` that can be got at; receptacle -1 when in hand."""
    wanted = set(objects) & engine.game.affords["pickupable"]
    found = [(o, r) for r, items in enumerate(engine.contents) for o in items if o in wanted and o != engine.held]
    return ([(engine.held, -1)] if engine.held in wanted else []) + found


def _put_aside(engine: Engine, draft: _Draft) -> bool:
    """Empty the hands into the first receptacle that takes the held object."""
    game, o = engine.game, engine.held
    fitting = [r for r, kind in enumerate(game.receptacle_type) if (kind, game.object_type[o]) in game.accepts]
    if not fitting:
        return False
    draft.move(o, min(fitting, key=lambda r: (game.location_of[r] != engine.here, game.openable[r], r)))
    return True


def _pick_up(engine: Engine, draft: _Draft, o: int, r: int) -> bool:
    if r < 0:
        return True
    if engine.held >= 0 and not draft.commands and not _put_aside(engine, draft):
        return False
    draft.take(o, r)
    return True


def _light_drafts(engine: Engine) -> Iterable[_Draft]:
    game, goal = engine.game, engine.game.goal
    assert isinstance(goal, LightGoal)
    lamps = [
        (o, r)
        for r, items in enumerate(engine.contents)
        for o in items
        if o in game.affords["toggleable"] and game.object_type[o] == goal.lamp_type
    ]
    for o, r in _sources(engine, game.goal_objects):
        for lamp, stand in lamps:
            draft = _Draft(engine)
            if _pick_up(engine, draft, o, r):
                if lamp in engine.flags["istoggled"]:
                    draft.go(stand)
                else:
                    draft.use(lamp, stand)
                yield draft


def _place_drafts(engine: Engine) -> Iterable[_Draft]:
    game, goal = engine.game, engine.game.goal
    assert not isinstance(goal, LightGoal)
    flags = sorted(flag for flag in goal.flags if flag in engine.flags)
    if "issliced" in flags:
        return  # official runs leave sliced goals out, and so does this planner
    sources = _sources(engine, game.goal_objects)
    for target in game.goal_receptacles:
        if not sources or (goal.receptacle_type, goal.object_type) not in game.accepts:
            continue
        ready = sum(
            o in game.goal_objects and all(o in engine.flags[flag] for flag in flags) for o in engine.contents[target]
        )
        missing = goal.count - ready
        loose = [(o, r) for o, r in sources if r != target or any(o not in engine.flags[flag] for flag in flags)]
        for chosen in permutations(loose, missing):
            if len({o for o, _ in chosen}) < missing or (missing > 1 and any(r < 0 for _, r in chosen[1:])):
                continue
            draft = _Draft(engine)
            if all(_fetch(engine, draft, o, r, target, flags) for o, r in chosen):
                yield draft


def _fetch(engine: Engine, draft: _Draft, o: int, r: int, target: int, flags: list[str]) -> bool:
    if not _pick_up(engine, draft, o, r):
        return False
    for flag in flags:
        if o not in engine.flags[flag] and not draft.treat(o, flag):
            return False
    draft.move(o, target)
    return True
