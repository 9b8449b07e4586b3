"""Our engine against TextWorld's, command by command, byte by byte.

Owns: the reference behind one interface, the walks, and the report with both speeds. Called by `t2po env check`
and as `python -m envs.alfworld.differential --official N --own M`. Must not know: training.

TextWorld and alfworld (domain and grammar) are an optional extra; nothing else of the project imports them.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import lzma
import random
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any

from envs.alfworld.engine import Engine, Game
from envs.alfworld.games import panel_games
from envs.alfworld.planner import plan
from envs.data_folder import DataError

State = tuple[str, list[str], bool]
NONSENSE_RATE = 0.02
_NONSENSE = ("", "dance", "go to", "take 1 from 2", "open the door", "GO TO FRIDGE 1", "look around", "use", "\u0394")
MISSING = "TextWorld is not installed: pip install 't2po[textworld]' (or deploy/requirements/textworld.txt) and repeat"


class Reference:
    """TextWorld's PDDL engine. One instance for all games: each holds a 34 MB library until the process ends."""

    def __init__(self) -> None:
        if any(importlib.util.find_spec(name) is None for name in ("textworld", "fast_downward", "alfworld")):
            raise DataError(MISSING)
        import textworld
        from alfworld.agents.utils.misc import Demangler
        from textworld.envs.pddl import PddlEnv

        found = importlib.util.find_spec("alfworld")
        data = Path(found.origin if found and found.origin else "").parent / "data"
        self._domain = (data / "alfred.pddl").read_text()
        self._grammar = (data / "alfred.twl2").read_text()
        self._demangler = Demangler
        _translate_once()
        self._env = PddlEnv(textworld.EnvInfos(won=True, admissible_commands=True))

    def reset(self, problem: str, task: str) -> State:
        arguments = list(sys.argv)  # its translator overwrites them
        try:
            self._env.load(
                {
                    "pddl_domain": self._domain,
                    "grammar": self._grammar.replace("UNKNOWN GOAL", task),
                    "pddl_problem": problem,
                }
            )
            names = self._demangler(game_infos=self._env._entity_infos)
            for entity in self._env._entity_infos.values():
                entity.name = names.demangle_alfred_name(entity.id)
            return self._state(self._env.reset())
        finally:
            sys.argv = arguments

    def step(self, command: str) -> State:
        state, _, _ = self._env.step(command)
        return self._state(state)

    @staticmethod
    def _state(state: Any) -> State:
        return state.feedback, list(state.admissible_commands), bool(state.won)


def _translate_once() -> None:
    """Let TextWorld translate each problem once. It does so four times a game: for `load` and for `reset`, and each
    time once more for its planner, which is never asked here. Nothing that is compared depends on it."""
    import fast_downward

    translate = getattr(fast_downward.pddl2sas, "__wrapped__", fast_downward.pddl2sas)

    @lru_cache(maxsize=1)
    def once(domain: str, problem: str) -> Any:
        return translate(domain, problem, verbose=False)

    @wraps(translate)
    def pddl2sas(domain: str, problem: str, verbose: bool = False, optimize: bool = False) -> Any:
        return once(domain, problem)

    fast_downward.pddl2sas = pddl2sas


@dataclass(slots=True)
class Comparison:
    """What was compared and what differed. Times are of steps only, admissible commands included."""

    games: dict[str, int] = field(default_factory=dict)
    steps: int = 0
    nonsense: int = 0
    won: int = 0
    mismatches: list[dict[str, Any]] = field(default_factory=list)
    own_seconds: float = 0.0
    reference_seconds: float = 0.0
    reference_reset_seconds: float = 0.0
    own_reset_seconds: float = 0.0

    def report(self) -> dict[str, Any]:
        own = self.steps / max(self.own_seconds, 1e-9)
        reference = self.steps / max(self.reference_seconds, 1e-9)
        return {
            **asdict(self),
            "own_steps_per_s": round(own, 1),
            "reference_steps_per_s": round(reference, 2),
            "speedup": round(own / reference, 1) if self.steps else None,
        }


def compare(
    games: list[tuple[str, str, str, str]],
    num_steps: int,
    seed: int,
    progress: Callable[[str], None] = lambda text: None,
    record: Callable[[dict[str, Any]], None] | None = None,
) -> Comparison:
    """Walk every game (panel, id, task, problem) in both engines, `num_steps` commands each.

    Even games follow the planner half of the time, odd ones walk at random with a taste for interaction.
    `record` gets each walk as the reference answered it.
    """
    reference, outcome = Reference(), Comparison()
    for number, (panel, task_id, task, problem) in enumerate(games):
        rng = random.Random(f"{seed} {task_id}")
        walk = _walk(reference, outcome, task, problem, rng, num_steps, 0.5 if number % 2 == 0 else 0.0)
        outcome.games[panel] = outcome.games.get(panel, 0) + 1
        if walk["mismatch"]:
            outcome.mismatches.append({"task": task_id, **walk["mismatch"]})
        if record is not None:
            record({"task": task_id, "sentence": task, "problem": problem, "steps": walk["steps"]})
        progress(f"{number + 1}/{len(games)} {outcome.steps} steps, {len(outcome.mismatches)} mismatches: {task_id}")
    return outcome


def _walk(
    reference: Reference,
    outcome: Comparison,
    task: str,
    problem: str,
    rng: random.Random,
    num_steps: int,
    guided: float,
) -> dict[str, Any]:
    started = time.perf_counter()
    engine = Engine(Game(problem, task))
    ours: State = (engine.reset(), engine.admissible(), engine.won())
    outcome.own_reset_seconds += time.perf_counter() - started
    started = time.perf_counter()
    theirs = reference.reset(problem, task)
    outcome.reference_reset_seconds += time.perf_counter() - started
    steps: list[tuple[str, State]] = [("", theirs)]
    command = ""
    for _ in range(num_steps):
        if ours != theirs:
            break  # after the first difference the two are in different states
        command = _choose(engine, rng, guided)
        outcome.nonsense += command not in ours[1]
        started = time.perf_counter()
        observation, _, done = engine.step(command)
        ours = (observation, engine.admissible(), done)
        middle = time.perf_counter()
        theirs = reference.step(command)
        outcome.own_seconds += middle - started
        outcome.reference_seconds += time.perf_counter() - middle
        outcome.steps += 1
        outcome.won += done
        steps.append((command, theirs))
    mismatch = {"step": len(steps) - 1, "command": command, "ours": ours, "theirs": theirs}
    return {"steps": steps, "mismatch": mismatch if ours != theirs else None}


def _choose(engine: Engine, rng: random.Random, guided: float) -> str:
    if rng.random() < NONSENSE_RATE:
        return rng.choice([*_NONSENSE, "go to " + rng.choice(engine.game.receptacles) + "0"])
    if rng.random() < guided and (commands := plan(engine)):
        return commands[0]
    can = engine.admissible()
    acting = [command for command in can if not command.startswith("go to ") and command != "help"]
    # mostly what changes something, so that objects travel; moving on often enough to meet every receptacle
    verbs = ("take", "move", "open", "clean", "heat", "cool", "use", "slice")
    changing = [command for command in acting if command.startswith(verbs)]
    point = rng.random()
    if changing and point < 0.5:
        return rng.choice(changing)
    return rng.choice(acting) if point < 0.65 else rng.choice(can)


def choose_games(official: int, own: int, seed: int) -> list[tuple[str, str, str, str]]:
    """`official` games of all official panels that are there, `own` of the embedded ones; a fixed sample."""
    rng = random.Random(seed)
    chosen: list[tuple[str, str, str, str]] = []
    for count, names in (
        (official, ("official-seen", "official-train", "official-unseen")),
        (own, ("unseen", "train")),
    ):
        pool = []
        for name in names if count else ():
            try:
                pool += [(name, game) for game in panel_games(name)]
            except DataError:
                if name == "official-seen":
                    raise
        if count > len(pool):
            raise DataError(f"{count} games asked for, {', '.join(names)} have {len(pool)}: ask for fewer")
        for name, game in rng.sample(pool, count):
            data = game.data()
            chosen.append((name, game.id, data["task"], data["problem"]))
    return chosen


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m envs.alfworld.differential", description=__doc__)
    parser.add_argument("--official", type=int, default=0, help="official games (fetch them first)")
    parser.add_argument("--own", type=int, default=10, help="games of the embedded suite")
    parser.add_argument("--steps", type=int, default=30, help="commands a game")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path, help="write TextWorld's answers to this .jsonl.xz (a test fixture)")
    chosen = parser.parse_args(arguments)
    try:
        games = choose_games(chosen.official, chosen.own, chosen.seed)
        walks: list[str] = []
        outcome = compare(
            games,
            chosen.steps,
            chosen.seed,
            lambda text: print(text, file=sys.stderr, flush=True),
            lambda walk: walks.append(json.dumps(walk, separators=(",", ":")) + "\n"),
        )
        if chosen.record:
            chosen.record.write_bytes(lzma.compress("".join(walks).encode(), preset=9 | lzma.PRESET_EXTREME))
    except DataError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(outcome.report(), indent=2))
    return 1 if outcome.mismatches else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
