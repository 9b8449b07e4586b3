"""The AI2-THOR floor plans: which receptacles stand where in each room, which objects occur, what fits where.

Owns: the condensed data file, `FloorPlan`, and the tables of affordances and goal wordings. Called by
`generator` and `suite`. Must not know: games, PDDL, panels.

The facts are from the wheel `alfworld` 0.4.2 (MIT, data/NOTICE.txt; the floor plans are AI2-THOR's), condensed by
`condense`. To rebuild the data file:
`python -m envs.alfworld.floorplans FOLDER`, where FOLDER is the unpacked wheel.
"""

from __future__ import annotations

import importlib.util
import json
import lzma
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

DATA_FILE = Path(__file__).parent / "data" / "floorplans.json.xz"
ROOM_KINDS = ("kitchen", "living room", "bedroom", "bathroom")
TASK_TYPES = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)
_FIRST_SCENE = {"kitchen": 0, "living room": 200, "bedroom": 300, "bathroom": 400}


@dataclass(frozen=True, slots=True)
class Place:
    """A receptacle of a floor plan: ALFRED id, type, and the location one stands at to use it."""

    id: str
    kind: str
    location: str


@dataclass(frozen=True, slots=True)
class FloorPlan:
    """One room. `start` is a location that belongs to no receptacle; `object_types` what AI2-THOR puts there."""

    scene: int
    places: tuple[Place, ...]
    object_types: tuple[str, ...]
    start: str


@dataclass(frozen=True, slots=True)
class Tables:
    """What holds in every room: receptacle type -> object types that fit, affordance -> object types."""

    can_contain: dict[str, frozenset[str]]
    affordances: dict[str, frozenset[str]]
    openable: frozenset[str]
    movable_receptacles: frozenset[str]
    sentences: dict[str, tuple[str, ...]]


def room_kind(scene: int) -> str:
    """`kitchen`, `living room`, `bedroom` or `bathroom`, from the scene number."""
    for kind, first in reversed(_FIRST_SCENE.items()):
        if first < scene <= first + 30:
            return kind
    raise ValueError(f"scene {scene} is no AI2-THOR room: use 1-30, 201-230, 301-330 or 401-430")


def train_scenes(kind: str) -> list[int]:
    """The rooms of the official training split: numbers 7 to 30 of each kind."""
    return [_FIRST_SCENE[kind] + number for number in range(7, 31)]


def unseen_scenes(kind: str) -> list[int]:
    """The rooms of the official unseen split: numbers 1 to 6 of each kind."""
    return [_FIRST_SCENE[kind] + number for number in range(1, 7)]


@cache
def _data() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(lzma.decompress(DATA_FILE.read_bytes()))
    return loaded


@cache
def tables() -> Tables:
    raw = _data()["tables"]
    return Tables(
        {kind: frozenset(types) for kind, types in raw["can_contain"].items()},
        {name: frozenset(types) for name, types in raw["affordances"].items()},
        frozenset(raw["openable"]),
        frozenset(raw["movable_receptacles"]),
        {task: tuple(texts) for task, texts in raw["sentences"].items()},
    )


@cache
def floor_plan(scene: int) -> FloorPlan:
    room_kind(scene)
    raw = _data()["scenes"][str(scene)]
    places = tuple(Place(i, _place_kind(i), f"loc|{x}|{z}|{turn}|{tilt}") for i, x, z, turn, tilt in raw["places"])
    x, z = raw["start"]
    taken = {place.location for place in places}
    start = next(spot for turn in range(4) if (spot := f"loc|{x}|{z}|{turn}|30") not in taken)
    return FloorPlan(scene, places, tuple(raw["objects"]), start)


def _place_kind(place_id: str) -> str:
    # a sink or bathtub holds things only in its basin, the last part of such an id
    return place_id.rsplit("|", 1)[1] if place_id.endswith("Basin") else place_id.split("|", 1)[0]


def condense(wheel: Path) -> dict[str, Any]:
    """The facts of the unpacked wheel `alfworld` that the generator needs, in a fixed order."""
    import numpy as np

    library = {name: _module(wheel / "alfworld" / "gen" / f"{name}.py") for name in ("constants", "goal_library")}
    constants, goals = library["constants"], library["goal_library"].gdict
    layouts = wheel / "alfworld" / "gen" / "layouts"
    scenes = {}
    for scene in [first + number for first in _FIRST_SCENE.values() for number in range(1, 31)]:
        spots = json.loads((layouts / f"FloorPlan{scene}-openable.json").read_text())
        objects = json.loads((layouts / f"FloorPlan{scene}-objects.json").read_text())
        points = np.load(layouts / f"FloorPlan{scene}-layout.npy")
        middle = points[np.abs(points - points.mean(axis=0)).sum(axis=1).argmin()]
        scenes[str(scene)] = {
            "places": [
                [i, round(x / 0.25), round(z / 0.25), round(turn / 90) % 4, round(tilt)]
                for i, (x, z, turn, tilt) in sorted(spots.items())
            ],
            "objects": sorted(objects),
            "start": [round(float(value) / 0.25) for value in middle],
        }
    return {
        "tables": {
            "can_contain": {k: sorted(v) for k, v in sorted(constants.VAL_RECEPTACLE_OBJECTS.items())},
            "affordances": {k.lower(): sorted(v) for k, v in sorted(constants.VAL_ACTION_OBJECTS.items())},
            "openable": sorted(constants.OPENABLE_CLASS_LIST),
            "movable_receptacles": sorted(constants.MOVABLE_RECEPTACLES),
            "sentences": {k: v["templates"] for k, v in sorted(goals.items()) if k in TASK_TYPES},
        },
        "scenes": scenes,
    }


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"{path} is missing: unpack the wheel alfworld 0.4.2 and name its folder")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    text = json.dumps(condense(Path(sys.argv[1])), separators=(",", ":"))
    DATA_FILE.parent.mkdir(exist_ok=True)
    DATA_FILE.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))
