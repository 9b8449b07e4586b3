"""Whether a run survives kill -9 of anything: killed at random moments, resumed, compared with an undisturbed run.

    python -m bench.kill_resume [--kills 10] [--seed 0] [--steps 12] [--folder FOLDER] [key=value ...]

Two runs of one recipe (tiny policy, fixed seed, staleness 0): one is left alone, of the other the learner, the
controller, the queue's server, or all processes at once are killed at random moments, and it is resumed when it ended.
Then: every trajectory is in exactly one committed step (audit), and the numbers of every step and the last weights
are compared. Prints one row a kill, the comparison, and a JSON line; exit status 1 when the audit or the course differ.

Owns: the moments, the rows, the comparison. tests/integration/test_kill_anything.py runs a short one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from controller.audit import judge_file
from controller.process_roles import PROCESS_MEASURES
from tests.integration.quick_policy import make_quick_policy
from tests.integration.run_process import RunProcess, gone

TARGETS = ("learner", "controller", "valkey", "all")
PART = {"learner": "ray::LearnerActor", "valkey": "valkey-server"}
PART_TIMEOUT_S = 300.0
"""A part that was killed before comes back in this time."""
STARTING_SHARE = 0.4
"""Share of the kills of the controller and of all that hit a run while it starts: the other parts are not there."""

SETTINGS = (
    "rollout.max_staleness=0", "checkpoint.every_steps=2", "inference.dtype=float32", "learner.dtype=float32",
    "eval.num_tasks=2", "inference.verify_every=1",
    # A matrix product rounds its last bits by how many rows it has. One request at a time, each prompt computed whole:
    # then a reply does not depend on what else was asked, before or after a kill.
    "inference.max_num_seqs=1", "inference.prefix_caching=false",
    # On a machine that does other things too a deadline must not decide what the course of the run is.
    "rollout.env_step_timeout_s=600", "rollout.trajectory_timeout_s=3000", "inference.request_timeout_s=1200",
    "inference.update_timeout_s=1200",
)  # fmt: skip

CLOCK = ("_s", "per_s", "_moving", "_depth", "_lag")
CLOCK_FIRST = (
    "busy_", "restarts_", "groups_ready", "groups_under_way", "replayed_", "repeated_", "failed_attempts_", "weights_",
    "foreign_", "overlap_", *(f"{kind}_" for kind in PROCESS_MEASURES),
)  # fmt: skip
"""Numbers of the clock or of one life of the run, not of its course."""


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill: what, when in that life of the run, and where the run stood."""

    number: int
    target: str
    after_s: float
    up: bool
    step: int
    committed: int
    doing: str
    resumed: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """`differences`: largest difference of a number over the steps, as a share of its size where that is above 1; of
    those that differ at all. `updates`: how many the calm run made, lest two runs that do nothing compare equal."""

    steps: int
    numbers: int
    differences: dict[str, float]
    same_weights: bool
    updates: float

    @property
    def same(self) -> bool:
        """Bit by bit, the weights too."""
        return not self.differences and self.same_weights


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How long a start and a step take, seconds: of a run that was left alone."""

    start_s: float
    step_s: float

    @classmethod
    def of(cls, run: RunProcess) -> Rhythm:
        found = re.findall(r"everything is up after (\d+) s", run.output())
        rows = run.metrics()
        return cls(float(found[0]), sum(float(row["step_s"]) for row in rows) / len(rows))


def targets_of(kills: int, seed: int) -> list[str]:
    """Each target equally often, in a random order."""
    row = [TARGETS[number % len(TARGETS)] for number in range(kills)]
    random.Random(seed).shuffle(row)
    return row


def disturb(
    run: RunProcess, targets: Sequence[str], seed: int, rhythm: Rhythm, steps: int, say: Any = print
) -> list[Kill]:
    """Kills `targets` one after another, each at a random moment, and resumes the run each time that it ends.

    The moments are spread over the `steps` of the run: in a step, while it is saved, between two; some hit a start.
    """
    chance = random.Random(f"{seed} moments")
    done: list[Kill] = []
    reached = sorted(chance.uniform(0.0, steps - 0.5) for _ in targets)
    for number, (target, goal) in enumerate(zip(targets, reached, strict=True), start=1):
        starting = target in ("controller", "all") and chance.random() < STARTING_SHARE
        began = time.monotonic()
        if starting:
            time.sleep(chance.uniform(0.1, 1.0) * rhythm.start_s)
        else:
            run.wait_until_up()
            run.wait_for_step(int(goal))
            time.sleep(goal % 1 * rhythm.step_s)
        after = time.monotonic() - began
        if run.process.poll() is not None:
            break  # it was faster than the kills
        standing, up = _standing(run), run.is_up()
        ended = _kill(run, target)
        done.append(Kill(number, target, round(after, 1), up, *standing, ended))
        say(done[-1])
        if ended:
            run.resume()
    return done


def _kill(run: RunProcess, target: str) -> bool:
    """Whether the run ended of it. Nothing of a run that ended is left."""
    family = run.family()
    if target == "controller":
        run.kill()
    elif target == "all":
        for process in [psutil.Process(run.process.pid), *family]:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        run.process.wait(30)
    else:  # the run goes on: with another server, or in another life from its last checkpoint
        run.part(PART[target], PART_TIMEOUT_S).kill()
        time.sleep(1.0)
        return run.process.poll() is not None
    assert gone(family, 60.0), "processes outlived the run that started them"
    return True


def _standing(run: RunProcess) -> tuple[int, int, str]:
    """(last finished step, last committed one, what was going on)."""
    steps = run.metrics()
    saved = [int(path.name[5:]) for path in (run.folder / "checkpoints").glob("step-*")]
    doing = "saving" if list((run.folder / "checkpoints").glob(".writing-*")) else _last_event(run.folder)
    return (steps[-1]["step"] if steps else 0), max(saved, default=0), doing


def _last_event(folder: Path) -> str:
    try:
        lines = (folder / "audit.jsonl").read_text(encoding="utf-8").splitlines()
        return f"after '{json.loads(lines[-1])['event']}'"
    except (OSError, IndexError, ValueError):
        return "starting"


def compare(calm: RunProcess, disturbed: RunProcess) -> Comparison:
    """Every number of the course, step by step, and the last weights, bit by bit."""
    left, right = calm.metrics(), disturbed.metrics()
    assert [row["step"] for row in left] == [row["step"] for row in right], "these runs have not the same steps"
    differences: dict[str, float] = {}
    names = sorted(name for name in left[0].keys() | right[0].keys() if _of_course(name))
    for one, other in zip(left, right, strict=True):
        for name in names:
            gap = _gap(one.get(name), other.get(name))
            if gap:
                differences[name] = max(gap, differences.get(name, 0.0))
    weights = [_last_weights(run.folder) for run in (calm, disturbed)]
    updates = sum(float(row["updates"]) for row in left)
    return Comparison(len(left), len(names), differences, weights[0] == weights[1], updates)


def _of_course(name: str) -> bool:
    return name != "time" and not name.endswith(CLOCK) and not name.startswith(CLOCK_FIRST)


def _gap(one: Any, other: Any) -> float:
    if one is None or other is None:
        return 0.0 if one is other else math.inf
    return abs(float(one) - float(other)) / max(1.0, abs(float(one)))


def _last_weights(folder: Path) -> str:
    newest = max((folder / "checkpoints").glob("step-*"))
    return hashlib.blake2b((newest / "policy" / "model.safetensors").read_bytes()).hexdigest()


def problems_of(run: RunProcess, steps: int, trajectories: int) -> list[str]:
    """What the audit finds wrong: a trajectory that is lost, in no committed step, or in two."""
    report = judge_file(run.folder / "audit.jsonl")
    found = list(report.problems)
    verdicts = list(report.trajectories.values())
    if report.committed_step != steps:
        found.append(f"step {report.committed_step} is committed, {steps} were to be done")
    if verdicts.count("trained") != trajectories:
        found.append(f"{verdicts.count('trained')} trajectories are in a committed step, {trajectories} were to be")
    if "live" in verdicts:
        found.append(f"{verdicts.count('live')} trajectories are neither trained nor dropped")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("changes", nargs="*", metavar="key=value")
    parser.add_argument("--kills", type=int, default=10, help="0 compares two calm runs")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and targets")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--folder", type=Path, help="where the runs are; a calm run that is there is used again")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="kill-resume-"))
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "policy").is_dir():
        make_quick_policy(folder / "policy")
    changes = [*SETTINGS, f"steps={options.steps}", *options.changes]
    runs: list[RunProcess] = []
    try:
        calm = RunProcess(folder, "calm", *changes, known=(folder / "calm").is_dir())
        runs.append(calm)
        assert calm.finish(1800) == 0, calm.output()[-3000:]
        began = time.monotonic()
        other = RunProcess(folder, f"other-{time.strftime('%H%M%S')}", *changes)
        runs.append(other)
        kills = disturb(other, targets_of(options.kills, options.seed), options.seed, Rhythm.of(calm), options.steps)
        assert other.finish(1800) == 0, other.output()[-3000:]
    finally:
        for run in runs:
            run.end()
    problems = problems_of(other, options.steps, options.steps * 2 * 3)
    course = compare(calm, other)
    print("\n".join(problems) or "audit: every trajectory is in exactly one committed step")
    print(
        f"{course.steps} steps, {course.numbers} numbers each, {course.updates:g} updates: "
        + ("the same, bit by bit" if not course.differences else f"differ: {course.differences}")
        + f"; last weights {'the same, bit by bit' if course.same_weights else 'differ'}"
        + f"; {time.monotonic() - began:.0f} s"
    )
    print(json.dumps({"kills": [asdict(kill) for kill in kills], "course": asdict(course), "problems": problems}))
    return 0 if not problems and course.same else 1


if __name__ == "__main__":
    sys.exit(main())
