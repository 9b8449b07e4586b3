"""The ALFWorld text game: what every command does and says, byte for byte as TextWorld's PDDL engine has it.

Owns: `Engine`, one run of a `Game`. Called by `env`, `planner`, `differential`, `play` and `check`. Must not
know: panels, prompts, rewards, turn limits.

The quirks are the original's and are kept on purpose: `look` away from every receptacle sees nothing, `use`
never turns a lamp off, only the held object can be examined, an object may be in two receptacles at once.
"""

from __future__ import annotations

from bisect import insort

from envs.alfworld.game import Game
from envs.alfworld.pddl import LightGoal

__all__ = ["Engine", "Game"]

WELCOME = "-= Welcome to TextWorld, ALFRED! =-\n\n"
TASK_PREFIX = "Your task is to: "
NOTHING_HAPPENS = "Nothing happens."
HELP = """Available commands:
  look:                             look around your current location
  inventory:                        check your current inventory
  go to (receptacle):               move to a receptacle
  open (receptacle):                open a receptacle
  close (receptacle):               close a receptacle
  take (object) from (receptacle):  take an object from a receptacle
  move (object) to (receptacle):  place an object in or on a receptacle
  examine (something):              examine a receptacle or an object
  use (object):                     use an object
  heat (object) with (receptacle):  heat an object using a receptacle
  clean (object) with (receptacle): clean an object using a receptacle
  cool (object) with (receptacle):  cool an object using a receptacle
  slice (object) with (object):     slice an object using a sharp object
"""
_ALWAYS = ("help", "inventory", "look")
_TREATMENTS = (  # verb, affordance, receptacle type, flag gained, flag lost
    ("clean", "cleanable", "sinkbasintype", "isclean", ""),
    ("heat", "heatable", "microwavetype", "ishot", "iscool"),
    ("cool", "coolable", "fridgetype", "iscool", "ishot"),
)
_EXAMINED = (  # the first row whose flags all hold gives the words for an examined object
    (("isclean", "ishot", "issliced"), "This is a hot and clean sliced {}."),
    (("isclean", "iscool", "issliced"), "This is a cool and clean sliced {}."),
    (("isclean", "issliced"), "This is a clean sliced {}."),
    (("ishot", "issliced"), "This is a hot sliced {}."),
    (("iscool", "issliced"), "This is a cool sliced {}."),
    (("isclean", "ishot"), "This is a hot and clean {}."),
    (("isclean", "iscool"), "This is a cool and clean {}."),
    (("ishot",), "This is a hot {}."),
    (("isclean",), "This is a clean {}."),
    (("iscool",), "This is a cold {}."),
    (("toggleable", "istoggled"), "This {} is on."),
    (("sliceable", "issliced"), "This is a sliced {}."),
)


def enumerate_names(names: list[str]) -> str:
    """`a x, and a y` as the original lists things: ", and " also between two, "nothing" for none."""
    if not names:
        return "nothing"
    phrases = [f"a {name}" for name in names]
    return phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + ", and " + phrases[-1]


class Engine:
    """One run of a `Game`. `reset` starts it, `step` plays a command, `admissible` lists what can be played."""

    __slots__ = ("_moves", "_sorted", "contents", "flags", "game", "held", "here", "opened", "places", "taken_from")

    def __init__(self, game: Game) -> None:
        self.game = game
        self.reset()

    def reset(self) -> str:
        """Back to the initial state; the opening text."""
        game = self.game
        self.here = game.start
        self.held = game.first_held
        self.opened = set(game.first_opened)
        self.contents = [list(items) for items in game.first_contents]
        self.flags = {name: set(items) for name, items in game.first_flags.items()}
        self.places = set(game.first_places)
        self.taken_from: set[tuple[int, int]] = set()
        self._moves: dict[str, tuple[str, int, int]] | None = None
        self._sorted: list[str] | None = None
        return f"{WELCOME}{self._look(list(game.receptacles))}\n\n{TASK_PREFIX}{game.task}."

    def admissible(self) -> list[str]:
        """Every command that does something here, sorted; `help` among them. The list belongs to the caller."""
        if self._sorted is None:
            self._sorted = sorted([*_ALWAYS, *self.game.go_commands[self.here], *self._local_moves()])
        return list(self._sorted)

    def place(self) -> str:
        """The first receptacle that the agent stands at, "" in the middle of the room. Not part of any text."""
        near = self.game.at_location[self.here]
        return self.game.receptacles[near[0]] if near else ""

    def step(self, command: str) -> tuple[str, float, bool]:
        """Play one command: (observation, 1.0 when the goal holds else 0.0, done)."""
        command = command.strip()
        target = self.game.go_commands[self.here].get(command)
        if target is not None:
            self.here = self.game.location_of[target]
            self._moves = self._sorted = None
            observation = f"You arrive at {self.game.receptacles[target]}. {self._describe(target)}"
        else:
            move = self._local_moves().get(command)
            if move is not None:
                observation = self._apply(*move)
            elif command == "look":
                observation = self._look([])
            elif command == "inventory":
                held = "" if self.held < 0 else self.game.objects[self.held]
                observation = f"You are carrying: a {held}." if held else "You are not carrying anything."
            elif command == "help":
                observation = HELP
            else:
                observation = NOTHING_HAPPENS
        won = self.won()
        return observation, float(won), won

    def won(self) -> bool:
        """Whether the goal holds now."""
        goal, game = self.game.goal, self.game
        if isinstance(goal, LightGoal):
            if self.held not in game.goal_objects:
                return False
            lit = self.flags["istoggled"] & game.affords["toggleable"]
            return any(
                o in lit and game.object_type[o] == goal.lamp_type
                for r in game.at_location[self.here]
                for o in self.contents[r]
            )
        good = game.goal_objects.intersection(*(self.flags[f] for f in goal.flags if f in self.flags))
        return any(sum(o in good for o in self.contents[r]) >= goal.count for r in game.goal_receptacles)

    def reachable(self, receptacle: int) -> bool:
        """Whether things in it can be seen and taken: it is open, or cannot be opened at all."""
        return receptacle in self.opened or not self.game.openable[receptacle]

    def _local_moves(self) -> dict[str, tuple[str, int, int]]:
        """The commands other than `go to`, `look`, `inventory`, `help`: command -> (verb, object, receptacle)."""
        if self._moves is not None:
            return self._moves
        game, held = self.game, self.held
        moves: dict[str, tuple[str, int, int]] = {}
        for r in game.at_location[self.here]:
            name = game.receptacles[r]
            moves[f"examine {name}"] = ("examine", -1, r)
            if game.openable[r]:
                verb = "close" if r in self.opened else "open"
                moves[f"{verb} {name}"] = (verb, -1, r)
            for o in self.contents[r]:
                if held < 0 and o in game.affords["pickupable"] and self.reachable(r):
                    moves[f"take {game.objects[o]} from {name}"] = ("take", o, r)
                if o in game.affords["toggleable"]:
                    moves[f"use {game.objects[o]}"] = ("use", o, r)
            if held >= 0:
                item, kind = game.objects[held], game.receptacle_type[r]
                if self.reachable(r) and (kind, game.object_type[held]) in game.accepts:
                    moves[f"move {item} to {name}"] = ("move", held, r)
                for verb, affordance, place, _, _ in _TREATMENTS:
                    if kind == place and held in game.affords[affordance]:
                        moves[f"{verb} {item} with {name}"] = (verb, held, r)
        if held >= 0:
            moves[f"examine {game.objects[held]}"] = ("inspect", held, -1)
            if game.object_type[held] in ("knifetype", "butterknifetype"):
                for o in game.affords["sliceable"]:
                    if (o, self.here) in self.places:
                        moves[f"slice {game.objects[o]} with {game.objects[held]}"] = ("slice", o, -1)
        self._moves = moves
        return moves

    def _apply(self, verb: str, o: int, r: int) -> str:
        game = self.game
        item = game.objects[o] if o >= 0 else ""
        name = game.receptacles[r] if r >= 0 else ""
        if verb == "examine":
            return self._describe(r)
        if verb == "inspect":
            return self._inspect(o)
        if verb == "use":
            self.flags["istoggled"].add(o)
            return f"You turn on the {item}."
        if verb == "slice":
            self.flags["issliced"].add(o)
            return f"You sliced the {item} with the {game.objects[self.held]}."
        if verb in ("clean", "heat", "cool"):
            _, _, _, gained, lost = next(row for row in _TREATMENTS if row[0] == verb)
            self.flags[gained].add(o)
            if lost:
                self.flags[lost].discard(o)
            return f"You {verb} the {item} using the {name}."
        self._moves = self._sorted = None  # the verbs below change what can be done here
        if verb == "open":
            self.opened.add(r)
            return f"You open the {name}. {self._describe(r)}"
        if verb == "close":
            self.opened.discard(r)
            return f"You close the {name}."
        if verb == "take":
            self.held = o
            self.contents[r].remove(o)
            self.taken_from.add((o, r))
            self.places.discard((o, self.here))
            return f"You pick up the {item} from the {name}."
        self.held = -1  # move
        if o not in self.contents[r]:  # it may be listed there already: some objects begin in two receptacles
            insort(self.contents[r], o)
        self.taken_from.discard((o, r))
        self.places.add((o, self.here))
        return f"You move the {item} to the {name}."

    def _describe(self, r: int) -> str:
        name = self.game.receptacles[r]
        contents = enumerate_names([self.game.objects[o] for o in self.contents[r]])
        if not self.game.openable[r]:
            return f"On the {name}, you see {contents}."
        return f"The {name} is open. In it, you see {contents}." if r in self.opened else f"The {name} is closed."

    def _inspect(self, o: int) -> str:
        game, item = self.game, self.game.objects[o]
        if o in game.affords["isreceptacleobject"]:
            inner = enumerate_names([game.objects[i] for i in game.nested.get(o, [])])
            return f"This is a normal {item}. In it, you see {inner}."
        for needed, text in _EXAMINED:
            if all(o in (self.flags[flag] if flag in self.flags else game.affords[flag]) for flag in needed):
                return text.format(item)
        return f"There's nothing special about {item}."

    def _look(self, everything: list[str]) -> str:
        game, around = self.game, self.game.at_location[self.here]
        if not around:
            seen = enumerate_names(everything)
            return f"You are in the middle of a room. Looking quickly around you, you see {seen}."
        names = [game.receptacles[r] for r in around]
        facing = names[0] if len(names) == 1 else ", ".join(names[:-1]) + ", and " + names[-1]
        fallen = [
            game.objects[o]
            for o, place in sorted(self.places)
            if place == self.here
            for r in around
            if (o, r) in self.taken_from
        ]
        return f"You are facing the {facing}. Next to it, you see {enumerate_names(fallen)}."
