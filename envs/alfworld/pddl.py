"""The PDDL problem of an ALFWorld game: text in, facts and goal out.

Owns: reading one problem into `Problem`, and what each goal shape means. Called by `engine`, `official`,
`suite` and the tests. Must not know: names shown to the agent, commands, where the text came from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from envs.data_folder import DataError

Form = str | list["Form"]
Fact = tuple[str, ...]

_TOKEN = re.compile(r"\(|\)|;[^\n]*|[^\s();]+")
_STATE_FLAGS = frozenset({"isclean", "ishot", "iscool", "issliced"})
_TWO_PLACED = {"atlocation", "receptacleatlocation", "objectatlocation", "receptacletype", "objecttype", "cancontain"}
_TWO_PLACED |= {"inreceptacle", "inreceptacleobject", "wasinreceptacle", "holds", "="}
_STATIC_FLAGS = frozenset({"cleanable", "heatable", "coolable", "sliceable"})


@dataclass(frozen=True, slots=True)
class PlaceGoal:
    """`count` distinct objects of `object_type`, each with all `flags`, in one receptacle of `receptacle_type`."""

    object_type: str
    receptacle_type: str
    flags: frozenset[str]
    count: int


@dataclass(frozen=True, slots=True)
class LightGoal:
    """A toggled lamp of `lamp_type` in a receptacle here, and an object of `object_type` in hand."""

    object_type: str
    lamp_type: str


Goal = PlaceGoal | LightGoal


@dataclass(frozen=True, slots=True)
class Problem:
    """Initial facts, lower-cased as TextWorld has them, and the goal."""

    facts: tuple[Fact, ...]
    goal: Goal


def read_form(text: str) -> list[Form]:
    """The first balanced form of `text`. Official files carry one `)` too many behind it: what follows is not read."""
    stack: list[list[Form]] = []
    for match in _TOKEN.finditer(text.lower()):
        token = match.group()
        if token == "(":
            stack.append([])
        elif token == ")":
            if not stack:
                raise DataError("PDDL problem begins with ')': the file is damaged, fetch it again")
            form = stack.pop()
            if not stack:
                return form
            stack[-1].append(form)
        elif token[0] != ";" and stack:
            stack[-1].append(token)
    raise DataError("PDDL problem ends inside an open '(': the file is cut short, fetch it again")


def parse_problem(text: str) -> Problem:
    """Read one problem; raises DataError when a section is missing or the goal has a shape the engine cannot judge."""
    sections = {str(form[0]): form for form in read_form(text) if isinstance(form, list) and form}
    for name in (":init", ":goal"):
        if name not in sections:
            raise DataError(f"PDDL problem has no {name} section: not an ALFWorld game, or damaged")
    facts = []
    for form in sections[":init"][1:]:
        if not isinstance(form, list) or not form:
            raise DataError(f"PDDL :init holds {form!r}, expected a fact: the file is damaged")
        if form[0] == "=":  # (= (total-cost) 0) and distances play no part in the text game
            continue
        words = [part for part in form if isinstance(part, str)]
        if len(words) != len(form):
            raise DataError(f"PDDL :init holds a nested form {form!r}, expected a plain fact: the file is damaged")
        facts.append(_checked(tuple(words)))
    return Problem(tuple(facts), _read_goal(sections[":goal"]))


def _checked(atom: Fact) -> Fact:
    if not atom or len(atom) != 1 + (2 if atom[0] in _TWO_PLACED else 1):
        raise DataError(f"PDDL problem holds {' '.join(atom)!r}, which has the wrong length: the file is damaged")
    return atom


def _atoms(form: Form) -> Iterator[Fact]:
    """Every atom below `and`, `exists` and `not`, in order; the four ALFRED goal shapes have nothing else."""
    if isinstance(form, str) or not form:
        return
    head = form[0]
    if head == "exists":
        for part in form[2:]:
            yield from _atoms(part)
    elif head in ("and", ":goal", "not"):
        for part in form[1:]:
            yield from _atoms(part)
    else:
        yield _checked(tuple(part for part in form if isinstance(part, str)))


def _read_goal(form: Form) -> Goal:
    atoms = list(_atoms(form))
    predicates = {atom[0] for atom in atoms}
    types = {atom[1]: atom[2] for atom in atoms if atom[0] in ("objecttype", "receptacletype")}
    if {"istoggled", "holds"} <= predicates:
        lamp = next(atom[1] for atom in atoms if atom[0] == "istoggled")
        held = next(atom[2] for atom in atoms if atom[0] == "holds")
        if lamp in types and held in types:
            return LightGoal(types[held], types[lamp])
    known = {"inreceptacle", "objecttype", "receptacletype", "="} | _STATE_FLAGS | _STATIC_FLAGS
    placed = sorted({(atom[1], atom[2]) for atom in atoms if atom[0] == "inreceptacle"})
    distinct = len(placed) == 1 or "=" in predicates
    if predicates <= known and placed and distinct and len({receptacle for _, receptacle in placed}) == 1:
        first, receptacle = placed[0]
        flags = [{a[0] for a in atoms if len(a) == 2 and a[1] == o} for o, _ in placed]
        same_type = len({types.get(o) for o, _ in placed}) == 1
        if first in types and receptacle in types and same_type and all(each == flags[0] for each in flags):
            return PlaceGoal(types[first], types[receptacle], frozenset(flags[0]), len(placed))
    raise DataError(
        f"PDDL :goal uses {sorted(predicates)}: only place, clean/heat/cool and place, place two, and look at in light "
        "can be judged; leave this game out (official runs skip 'movable' and 'Sliced' games too)"
    )
