"""New ALFWorld games from the AI2-THOR floor plans.

Owns: choosing a room's receptacles, the task, where things lie, and writing the PDDL problem. Called by
`suite` and the tests. Must not know: the engine, experts, panels, splits.

`generate_game` gives a dict of the same shape as a line of the official data: id, task, task_type,
pddl_params, scene, problem. Everything random comes from the `random.Random` passed in, and only through
`random()`, whose output does not change between Python versions. A desk lamp is put into any living room or
bedroom that has a table to stand it on: AI2-THOR has one in 27 of those 60 rooms only.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeVar

from envs.alfworld.floorplans import TASK_TYPES, FloorPlan, Place, floor_plan, room_kind, tables

Item = TypeVar("Item")
GameData = dict[str, Any]

STATION = {
    "pick_clean_then_place_in_recep": ("cleanable", "SinkBasin", "isClean"),
    "pick_heat_then_place_in_recep": ("heatable", "Microwave", "isHot"),
    "pick_cool_then_place_in_recep": ("coolable", "Fridge", "isCool"),
}
LAMP = "DeskLamp"
_LAMP_STANDS_ON = frozenset({"Desk", "SideTable", "Dresser", "DiningTable", "CoffeeTable"})
_MOST_OF_A_KIND = 3  # as in the original: no more than three instances of an object type by chance


class NoSuchGame(ValueError):
    """The room cannot hold a game of this type; try another room or type."""


def generate_game(
    scene: int, task_type: str, rng: random.Random, *, max_receptacles: int, distractors: int, sparse: bool = True
) -> GameData:
    """One solvable game whose goal does not hold at the start.

    `max_receptacles` bounds a random subset of the room's receptacles that keeps those the task needs;
    `distractors` is the number of objects besides the task's own; with `sparse` no two receptacles share a
    location. Raises NoSuchGame where the room has nothing to make this task from.
    """
    if task_type not in TASK_TYPES:
        raise ValueError(f"task_type {task_type!r} is not one of {', '.join(TASK_TYPES)}")
    plan = floor_plan(scene)
    target, parent = _choose_task(plan, task_type, rng)
    places = _choose_places(plan, task_type, target, parent, rng, max_receptacles, sparse)
    things = _choose_things(plan, task_type, target, parent, places, rng, distractors)
    sentence = _pick(tables().sentences[task_type], rng)
    task = sentence.format(obj=target, recep=parent, toggle=LAMP).lower()
    goal = _goal(task_type, target, parent)
    problem = _write_problem(plan, places, things, goal)
    digest = hashlib.blake2b(f"{task}\n{problem}".encode(), digest_size=6).hexdigest()
    return {
        "id": f"{task_type}-{target}-None-{parent or LAMP}-{scene}/trial_{digest}",
        "task": task,
        "task_type": task_type,
        "pddl_params": {
            "mrecep_target": "",
            "object_sliced": False,
            "object_target": target,
            "parent_target": parent,
            "toggle_target": "" if parent else LAMP,
        },
        "scene": scene,
        "problem": problem,
    }


def possible_task_types(scene: int) -> tuple[str, ...]:
    """The task types that this room can hold at all."""
    plan = floor_plan(scene)
    return tuple(task_type for task_type in TASK_TYPES if _task_choices(plan, task_type))


def _pick(items: Sequence[Item], rng: random.Random) -> Item:
    # not rng.choice: its algorithm has changed between Python versions, random() has not
    return items[int(rng.random() * len(items))]


def _movable_types(plan: FloorPlan) -> list[str]:
    anywhere = frozenset().union(*tables().can_contain.values())
    return [kind for kind in plan.object_types if kind in anywhere]


def _holders(plan: FloorPlan, target: str) -> set[str]:
    return {place.kind for place in plan.places if target in tables().can_contain.get(place.kind, frozenset())}


def _task_choices(plan: FloorPlan, task_type: str) -> list[tuple[str, str]]:
    """Every (target, parent) that this room allows; the parent is "" for look_at."""
    kinds = {place.kind for place in plan.places}
    targets = _movable_types(plan)
    if task_type == "look_at_obj_in_light":
        if room_kind(plan.scene) not in ("living room", "bedroom") or not kinds & _LAMP_STANDS_ON:
            return []
        return [(target, "") for target in targets if _holders(plan, target)]
    affordance, station, _ = STATION.get(task_type, ("", "", ""))
    if station and station not in kinds:
        return []
    if affordance:
        targets = [target for target in targets if target in tables().affordances[affordance]]
    return [
        (target, parent)
        for target in targets
        for parent in sorted(_holders(plan, target))
        if parent != station and len(_holders(plan, target)) > 1
    ]


def _choose_task(plan: FloorPlan, task_type: str, rng: random.Random) -> tuple[str, str]:
    choices = _task_choices(plan, task_type)
    if not choices:
        raise NoSuchGame(f"room {plan.scene} has nothing for {task_type}")
    # first the receptacle, then the object: otherwise the receptacles that hold many types win nearly always
    parent = _pick(sorted({parent for _, parent in choices}), rng)
    return _pick([target for target, each in choices if each == parent], rng), parent


def _choose_places(
    plan: FloorPlan, task_type: str, target: str, parent: str, rng: random.Random, most: int, sparse: bool
) -> list[Place]:
    fits = _holders(plan, target) - {parent}
    needed = [fits, {parent}] if parent else [fits, set(_LAMP_STANDS_ON)]
    if task_type in STATION:
        needed.append({STATION[task_type][1]})
    if max(len(needed), 2) > most:
        raise NoSuchGame(f"{task_type} needs {len(needed)} receptacles, max_receptacles is {most}")
    of_kind = Counter(place.kind for place in plan.places)
    # weighted so that every kind of receptacle is equally likely to be taken, however many cabinets a kitchen has
    drawn = sorted(((rng.random() ** of_kind[place.kind], place) for place in plan.places), key=lambda pair: -pair[0])
    candidates = [place for _, place in drawn]
    chosen: list[Place] = []

    def take(kinds: set[str] | None) -> bool:
        for place in candidates:
            free = place not in chosen and not (sparse and any(place.location == each.location for each in chosen))
            if free and (kinds is None or place.kind in kinds):
                chosen.append(place)
                return True
        return False

    for kinds in sorted(needed, key=len):
        if not any(place.kind in kinds for place in chosen) and not take(kinds):
            raise NoSuchGame(f"room {plan.scene} has no free receptacle of {sorted(kinds)} for {task_type}")
    while len(chosen) < most and take(None):
        pass
    return sorted(chosen, key=lambda place: place.id)


def _choose_things(
    plan: FloorPlan, task_type: str, target: str, parent: str, places: list[Place], rng: random.Random, distractors: int
) -> list[tuple[str, Place]]:
    """(object type, where it lies) for the task's objects and the distractors. No target begins in a parent."""
    things: list[tuple[str, Place]] = []
    fits = tables().can_contain

    def lay(kind: str) -> bool:
        spots = [p for p in places if kind in fits.get(p.kind, frozenset()) and (kind != target or p.kind != parent)]
        if spots:
            things.append((kind, _pick(spots, rng)))
        return bool(spots)

    for _ in range(2 if task_type == "pick_two_obj_and_place" else 1):
        if not lay(target):
            raise NoSuchGame(f"room {plan.scene}: no receptacle left for {target}")
    if task_type == "look_at_obj_in_light":
        things.append((LAMP, _pick([place for place in places if place.kind in _LAMP_STANDS_ON], rng)))
    types = _movable_types(plan)
    wanted = len(things) + distractors
    for _ in range(20 * distractors):  # some types fit nowhere in the chosen subset
        if len(things) >= wanted:
            break
        kind = _pick(types, rng)
        if sum(each == kind for each, _ in things) < _MOST_OF_A_KIND:
            lay(kind)
    return things


def _goal(task_type: str, target: str, parent: str) -> str:
    if task_type == "look_at_obj_in_light":
        return (
            "(:goal (and (exists (?ot - object ?r - receptacle ?a - agent ?l - location) (and "
            f"(objectType ?ot {LAMP}Type) (toggleable ?ot) (isToggled ?ot) (receptacleAtLocation ?r ?l) "
            "(atLocation ?a ?l) (inReceptacle ?ot ?r))) (exists (?o - object ?a - agent) (and "
            f"(objectType ?o {target}Type) (holds ?a ?o)))))"
        )
    if task_type == "pick_two_obj_and_place":
        one, two = (
            f"(objectType ?o{n} {target}Type) (receptacleType ?r {parent}Type) (inReceptacle ?o{n} ?r)" for n in (1, 2)
        )
        return (
            f"(:goal (and (exists (?r - receptacle) (exists (?o1 - object) (and {one} "
            f"(exists (?o2 - object) (and (not (= ?o1 ?o2)) {two})))))))"
        )
    affordance, _, flag = STATION.get(task_type, ("", "", ""))
    extra = f"({affordance} ?o) ({flag} ?o) " if flag else ""
    return (
        f"(:goal (and (exists (?r - receptacle) (exists (?o - object) (and {extra}(inReceptacle ?o ?r) "
        f"(objectType ?o {target}Type) (receptacleType ?r {parent}Type))))))"
    )


def mangle(alfred_id: str) -> str:
    """An ALFRED id as PDDL can spell it."""
    for sign, word in (("|", "_bar_"), ("-", "_minus_"), ("+", "_plus_"), (".", "_dot_"), (",", "_comma_")):
        alfred_id = alfred_id.replace(sign, word)
    return alfred_id


def _object_id(kind: str, place: Place, order: int) -> str:
    # ALFRED ids end in coordinates; the third is the place's own, the hundredths of the second keep ids apart
    x, y, z = (float(part) for part in place.id.split("|")[1:4])
    return mangle(f"{kind}|{x:+06.2f}|{y + 0.01 * order + 0.05:+06.2f}|{z:+06.2f}")


def _write_problem(plan: FloorPlan, places: list[Place], things: list[tuple[str, Place]], goal: str) -> str:
    table = tables()
    objects = sorted((_object_id(kind, place, n), kind, place) for n, (kind, place) in enumerate(things))
    kinds = sorted({kind for _, kind, _ in objects})
    place_kinds = sorted({place.kind for place in places})
    locations = sorted({mangle(place.location) for place in places} | {mangle(plan.start)})
    declared = ["agent1 - agent"]
    declared += [f"{kind}Type - otype" for kind in kinds] + [f"{kind}Type - rtype" for kind in place_kinds]
    declared += [f"{o} - object" for o, _, _ in objects]
    declared += [f"{mangle(place.id)} - receptacle" for place in places]
    declared += [f"{location} - location" for location in locations]
    facts = [f"(atLocation agent1 {mangle(plan.start)})"]
    for place in places:
        name = mangle(place.id)
        facts.append(f"(receptacleType {name} {place.kind}Type)")
        facts.append(f"(receptacleAtLocation {name} {mangle(place.location)})")
        if place.kind in table.openable:
            facts.append(f"(openable {name})")
    for holder in place_kinds:
        inside = table.can_contain.get(holder, frozenset())
        facts += [f"(canContain {holder}Type {kind}Type)" for kind in kinds if kind in inside]
    for o, kind, place in objects:
        facts.append(f"(objectType {o} {kind}Type)")
        facts.append(f"(inReceptacle {o} {mangle(place.id)})")
        facts.append(f"(objectAtLocation {o} {mangle(place.location)})")
        facts += ["(toggleable " + o + ")"] if kind == LAMP else ["(pickupable " + o + ")"]
        facts += ["(isReceptacleObject " + o + ")"] if kind in table.movable_receptacles else []
        for affordance in ("cleanable", "heatable", "coolable", "sliceable"):
            if kind in table.affordances[affordance]:
                facts.append(f"({affordance} {o})")
    head = "(define (problem plan_own)\n(:domain alfred)\n(:objects\n"
    return head + "\n".join(declared) + "\n)\n(:init\n" + "\n".join(facts) + "\n)\n" + goal + "\n)\n"
