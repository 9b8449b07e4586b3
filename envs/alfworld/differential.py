"""Our engine against TextWorld's, command by command, byte by byte.

Owns: the walks, the comparison, and the report with both speeds. Called by `t2po env compare` and as
`python -m envs.alfworld.differential --official N --own M`. Must not know: training, how TextWorld is driven.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from envs.alfworld.engine import Engine, Game
from envs.alfworld.games import panel_games
from envs.alfworld.planner import plan
from envs.alfworld.textworld_reference import Reference, State
from envs.comparison import Progress, Record, run_comparison, speeds
from envs.data_folder import DataError

Chosen = tuple[str, str, str, str]
"""Panel, task id, task sentence, problem."""
NONSENSE_RATE = 0.02
_NONSENSE = ("", "dance", "go to", "take 1 from 2", "open the door", "GO TO FRIDGE 1", "look around", "use", "\u0394")


@dataclass(slots=True)
class Comparison:
    """What was compared and what differed. The seconds are those of the steps of timed games, admissible commands
    included on both sides."""

    games: dict[str, int] = field(default_factory=dict)
    steps: int = 0
    nonsense: int = 0
    won: int = 0
    timed_games: int = 0
    timed_steps: int = 0
    mismatches: list[dict[str, Any]] = field(default_factory=list)
    own_seconds: float = 0.0
    reference_seconds: float = 0.0

    def report(self) -> dict[str, Any]:
        return {**asdict(self), **speeds(self.timed_steps, self.own_seconds, self.reference_seconds)}


def compare(
    games: list[Chosen],
    num_steps: int,
    seed: int,
    timed_every: int,
    progress: Progress = lambda text: None,
    record: Record | None = None,
) -> Comparison:
    """Walk every game (panel, id, task, problem) in both engines, `num_steps` commands each.

    Even games follow the planner half of the time, odd ones walk at random with a taste for interaction. Every
    `timed_every`-th game is played by TextWorld as it is and gives both speeds; in the others its parsers' answers
    are remembered, which makes the comparison several times faster.
    `record` gets each walk as the reference answered it.
    """
    reference, outcome = Reference(), Comparison()
    for number, (panel, task_id, task, problem) in enumerate(games):
        rng = random.Random(f"{seed} {task_id}")
        timed = number % timed_every == 0
        outcome.timed_games += timed
        walk = _walk(reference, outcome, task, problem, rng, num_steps, 0.5 if number % 2 == 0 else 0.0, timed)
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
    timed: bool,
) -> dict[str, Any]:
    reference.time_it(timed)
    engine = Engine(Game(problem, task))
    ours: State = (engine.reset(), engine.admissible(), engine.won())
    theirs = reference.reset(problem, task)
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
        if timed:
            outcome.own_seconds += middle - started
            outcome.reference_seconds += time.perf_counter() - middle
            outcome.timed_steps += 1
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


def choose_games(official: int, own: int, seed: int) -> list[Chosen]:
    """`official` games of all official panels that are there, `own` of the embedded ones; a fixed sample."""
    rng = random.Random(seed)
    chosen: list[Chosen] = []
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


def _part(games: list[Chosen], part: str) -> list[Chosen]:
    """Every N-th game from the K-th on, so that all kinds of games are in every part."""
    first, _, parts = part.partition("/")
    if not (first.isdecimal() and parts.isdecimal() and 1 <= int(first) <= int(parts)):
        raise DataError(f"--part {part!r}: write K/N with 1 <= K <= N, for example 2/10")
    return games[int(first) - 1 :: int(parts)]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m envs.alfworld.differential", description=__doc__)
    parser.add_argument("--official", type=int, default=0, help="official games (fetch them first)")
    parser.add_argument("--own", type=int, default=10, help="games of the embedded suite")
    parser.add_argument("--steps", type=int, default=30, help="commands a game")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", default="1/1", metavar="K/N", help="only the K-th of N parts of these games")
    parser.add_argument("--timed-every", type=int, default=7, help="every how manyth game measures the speeds")
    parser.add_argument("--record", type=Path, help="write TextWorld's answers to this .jsonl.xz (a test fixture)")
    chosen = parser.parse_args(arguments)

    def walk_all(progress: Progress, record: Record) -> Comparison:
        games = _part(choose_games(chosen.official, chosen.own, chosen.seed), chosen.part)
        return compare(games, chosen.steps, chosen.seed, chosen.timed_every, progress, record)

    return run_comparison(walk_all, chosen.record)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
