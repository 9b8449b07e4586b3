"""How much of the overlap bound a run reaches, and how much faster it is than lock-step.

    python -m bench.overlap [key=value ...] --folder FOLDER --model POLICY [--recipe alfworld] [--steps 20]
        [--rounds 2] [--table]

One recipe at staleness 0 (lock-step: a batch is generated, then trained, then its weights are sent) and at staleness 1
(the next batch is generated meanwhile), in turns (0 1 1 0 ...), so that what else the machine does meets both. The
learning rate is next to nothing: the policy stays what it is, and every step has the same work. The first and last
steps of a run are left out: the queue is filled in the first ones, and nothing is left to generate in the last.

T_generate, T_train and T_sync are the spans of `controller.overlap_bound`; a mean step of each kind of run is a row:
its share of its own bound (the metric `overlap_share`), and of the bound that lock-step's times allow. The first cannot
see that two sides that share cores make each other slower, the second does. Speed-up: lock-step's T_step over this
one's. Prints the table and a JSON line; exit status 1 when staleness 1 reaches less than TARGET of its own bound.

Runs are kept in FOLDER: one that is done is not run again; `--table` runs nothing.

Owns: the runs, the means, the table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

from controller.metrics import StepMetrics, read_metrics

TARGET = 0.9
FIRST, LAST = 2, 2
"""Steps left out at either end of a run."""
COMPARABLE = 1.5
"""The longer side may take so many times as long as the shorter one; otherwise there is little to overlap."""

SETTINGS = (
    "learner.lr=1e-7", "learner.lr_warmup_steps=0", "eval.before=false", "eval.num_tasks=1",
    "checkpoint.every_steps=5", "inference.verify_every=0", "metrics.port=0", "queue.max_groups=256",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Means:
    """A mean step of all runs at one staleness: seconds, and the tokens it sampled and trained."""

    steps: int
    generate_s: float
    train_s: float
    sync_s: float
    step_s: float
    bound_s: float
    sampled_tokens: float
    train_tokens: float

    @property
    def share(self) -> float:
        return self.bound_s / self.step_s

    @property
    def imbalance(self) -> float:
        """The longer side over the shorter one."""
        return max(self.generate_s, self.train_s) / max(min(self.generate_s, self.train_s), 1e-9)


def means_of(runs: Iterable[Sequence[StepMetrics]]) -> Means:
    """Over the middle steps of all runs. Raises ValueError when there is none, or when they have no such numbers."""
    steps = [step.values for run in runs for step in run[FIRST : len(run) - LAST]]
    if not steps:
        raise ValueError(f"no run has more than {FIRST + LAST} steps: nothing is left without the first and last ones")
    if any("overlap_bound_s" not in values for values in steps):
        raise ValueError("a run is older than the metric overlap_bound_s; run it again in another folder")

    def of(name: str) -> float:
        return mean(values[name] for values in steps)

    return Means(
        steps=len(steps),
        generate_s=of("t_generate_s"),
        train_s=of("t_train_s"),
        sync_s=of("t_sync_s"),
        step_s=of("step_s"),
        bound_s=of("overlap_bound_s"),
        sampled_tokens=of("sampled_tokens"),
        train_tokens=of("train_tokens"),
    )


def table(lockstep: Means, ahead: Means) -> str:
    """Markdown, and in words whether the two sides are comparable."""
    lines = [
        "| staleness | steps | T_generate (s) | T_train (s) | T_sync (s) | T_step (s) | bound (s) | share of it "
        "| share of lock-step's bound | speed-up | tokens sampled, trained |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, one in (("0 (lock-step)", lockstep), ("1", ahead)):
        times = (one.generate_s, one.train_s, one.sync_s, one.step_s, one.bound_s)
        cells = (
            name, str(one.steps), *(f"{seconds:.2f}" for seconds in times), f"{one.share:.1%}",
            f"{lockstep.bound_s / one.step_s:.1%}", f"{lockstep.step_s / one.step_s:.2f}",
            f"{one.sampled_tokens:.0f}, {one.train_tokens:.0f}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    verdict = "comparable" if lockstep.imbalance <= COMPARABLE else "NOT comparable: change the recipe's sizes"
    lines.append(
        f"\nLock-step: the longer side takes {lockstep.imbalance:.2f} times the shorter one ({verdict}); with "
        f"its times the most that overlap could bring is a speed-up of {lockstep.step_s / lockstep.bound_s:.2f}."
    )
    return "\n".join(lines)


def order_of(rounds: int) -> list[tuple[int, int]]:
    """(staleness, round): in turns, each round begun by the other one."""
    return [(staleness, number) for number in range(rounds) for staleness in ((0, 1) if number % 2 == 0 else (1, 0))]


def play(staleness: int, number: int, folder: Path, recipe: str, changes: Sequence[str]) -> None:
    """One run, unless it is done. RuntimeError when it fails."""
    run = _place(folder, staleness, number)
    if any((run / "evaluations").glob("*-after.json")):
        return
    arguments = [recipe, f"name={run.name}", f"runs_dir={folder}", f"rollout.max_staleness={staleness}", *changes]
    log = folder / f"{run.name}.log"
    with log.open("w") as output:
        command = [sys.executable, "-m", "controller.cli", "train", *arguments]
        ended = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False).returncode
    if ended:
        raise RuntimeError(f"{run.name} ended with {ended}; see {log}, remove {run} and start again")


def _place(folder: Path, staleness: int, number: int) -> Path:
    return folder / f"staleness-{staleness}-round-{number}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("changes", nargs="*", metavar="key=value")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="a policy's folder, of one `t2po coldstart`")
    parser.add_argument("--recipe", default="alfworld")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="only print what is done")
    options = parser.parse_intermixed_args()
    folder, changes = options.folder.resolve(), tuple(options.changes)
    if not options.table:
        if options.model is None or not (options.model / "config.json").exists():
            parser.error(
                f"--model {options.model}: not a policy; make one with: t2po coldstart {options.recipe} --to FOLDER"
            )
        folder.mkdir(parents=True, exist_ok=True)
        changes = (*SETTINGS, f"model={options.model.resolve()}", f"steps={options.steps}", *changes)
    try:
        for staleness, number in [] if options.table else order_of(options.rounds):
            play(staleness, number, folder, options.recipe, changes)
        lockstep, ahead = (
            means_of(read_metrics(run / "metrics.jsonl") for run in sorted(folder.glob(f"staleness-{one}-round-*/")))
            for one in (0, 1)
        )
    except (RuntimeError, ValueError, OSError) as error:
        print(f"bench.overlap: {error}", file=sys.stderr)
        return 2
    print(table(lockstep, ahead))
    print(json.dumps({"lockstep": asdict(lockstep), "ahead": asdict(ahead), "share": ahead.share}))
    return 0 if ahead.share >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
