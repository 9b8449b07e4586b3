"""Algorithms with and without T²PO's interventions, from one policy, over several seeds: one table.

    python -m bench.algorithms [key=value ...] --folder FOLDER --model POLICY [--recipe alfworld] [--steps 30]
        [--seeds 0 1 2] [--algorithms ppo grpo gigpo sampo] [--at-once 1] [--table]

Every cell is a run of `t2po train` with `algorithm`, `seed` and, without T²PO, `tti=off tds=off`; POLICY is the result
of one `t2po coldstart`. Runs are kept in FOLDER: a run that is done is not run again, one that was cut short goes on.
The table holds the runs that are done; `--table` prints it and runs nothing.

Owns: the cells, the rows, the table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from controller.metrics import read_metrics
from learner.presets import ALGORITHMS as KNOWN

ALGORITHMS = ("ppo", "grpo", "gigpo", "sampo")
WITHOUT = ("tti=off", "tds=off")
LAST = 5
"""Steps at the end of training over which its success is averaged."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One run."""

    algorithm: str
    with_t2po: bool
    seed: int

    @property
    def name(self) -> str:
        return f"{self.algorithm}-{'t2po' if self.with_t2po else 'plain'}-s{self.seed}"


@dataclass(frozen=True, slots=True)
class Row:
    """What a run that is done came to. Tokens and turns a success: all that were spent in training by all successes of
    training, rejected candidates included. `step_s`: median time of a step."""

    success: float
    train_success: float
    tokens: float
    turns: float
    step_s: float


def cells_of(algorithms: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """Seed after seed, so that a table that is not finished compares whole seeds."""
    return [Cell(name, on, seed) for seed in seeds for name in algorithms for on in (True, False)]


def is_done(run: Path) -> bool:
    return any((run / "evaluations").glob("*-after.json"))


def play(cell: Cell, folder: Path, recipe: str, model: Path, changes: Sequence[str]) -> None:
    """Trains the cell, or goes on with it; its output lies beside it."""
    run, began = folder / cell.name, time.monotonic()
    if is_done(run):
        return
    command = [sys.executable, "-m", "controller.cli", "train"]
    if (run / "config.toml").exists():
        command += ["--resume", str(run)]
    else:
        command += [
            recipe, f"name={cell.name}", f"runs_dir={folder}", f"model={model}", f"algorithm={cell.algorithm}",
            f"seed={cell.seed}", "metrics.port=0", "eval.before=false", *(() if cell.with_t2po else WITHOUT), *changes,
        ]  # fmt: skip
    with (folder / f"{cell.name}.log").open("a") as log:
        ended = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    print(f"{cell.name}: exit {ended} after {time.monotonic() - began:.0f} s", flush=True)


def row_of(run: Path) -> Row:
    """ValueError for a run without steps."""
    newest = sorted((run / "evaluations").glob("*-after.json"))[-1]
    steps = [step.values for step in read_metrics(run / "metrics.jsonl")]
    if not steps:
        raise ValueError(f"{run}: no step was done")
    won = sum(values["success"] * values["trajectories"] for values in steps)
    times = sorted(values["step_s"] for values in steps)
    return Row(
        success=json.loads(newest.read_text(encoding="utf-8"))["success"],
        train_success=mean(values["success"] for values in steps[-LAST:]),
        tokens=sum(values["sampled_tokens"] for values in steps) / max(won, 1.0),
        turns=sum(values["accepted_turns"] for values in steps) / max(won, 1.0),
        step_s=times[len(times) // 2],
    )


def table(rows: dict[Cell, Row]) -> str:
    """Markdown: mean ± standard deviation over the seeds."""
    lines = [
        "| algorithm | T²PO | seeds | success after | by seed | success in training, last steps | tokens a success "
        "| turns a success | s a step |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, on in dict.fromkeys((cell.algorithm, cell.with_t2po) for cell in rows):
        of_seed = {cell.seed: row for cell, row in rows.items() if (cell.algorithm, cell.with_t2po) == (name, on)}
        found = [of_seed[seed] for seed in sorted(of_seed)]
        columns = (
            name, "with" if on else "without", str(len(found)), _spread((row.success for row in found), 100),
            ", ".join(f"{row.success:.1%}" for row in found), _spread((row.train_success for row in found), 100),
            _spread(row.tokens for row in found), _spread(row.turns for row in found),
            _spread(row.step_s for row in found),
        )  # fmt: skip
        lines.append(f"| {' | '.join(columns)} |")
    return "\n".join(lines)


def _spread(values: Iterable[float], scale: float = 1.0) -> str:
    scaled = [value * scale for value in values]
    return f"{mean(scaled):.1f}" + (f" ± {stdev(scaled):.1f}" if len(scaled) > 1 else "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("changes", nargs="*", metavar="key=value")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--recipe", default="alfworld")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--algorithms", nargs="+", choices=sorted(KNOWN), default=list(ALGORITHMS))
    parser.add_argument("--at-once", type=int, default=1, help="runs side by side")
    parser.add_argument("--table", action="store_true", help="only print what is done")
    options = parser.parse_intermixed_args()
    cells = cells_of(options.algorithms, options.seeds)
    if not options.table:
        if options.model is None or not (options.model / "config.json").exists():
            parser.error(
                f"--model {options.model}: not a policy; make one with: t2po coldstart {options.recipe} --to FOLDER"
            )
        folder, changes = options.folder.resolve(), [f"steps={options.steps}", *options.changes]
        folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(options.at_once) as pool:
            model = options.model.resolve()
            list(pool.map(lambda cell: play(cell, folder, options.recipe, model, changes), cells))
    done = {cell: row_of(options.folder / cell.name) for cell in cells if is_done(options.folder / cell.name)}
    print(table(done))
    return 0 if len(done) == len(cells) else 1


if __name__ == "__main__":
    sys.exit(main())
