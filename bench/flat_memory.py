"""Whether memory, file handles and threads of every process of a run stay flat over many trajectories.

    python -m bench.flat_memory [--trajectories 10000] [--folder FOLDER] [--plot FILE] [--policy POLICY] [key=value ...]
    python -m bench.flat_memory --run RUN [--plot FILE]

A run with a tiny policy and short replies, whose processes are measured after every step (`controller.process_usage`),
in about 100 steps. `--run`: no run, the verdict on one that is there. Over the second half of the run each role's
growth is a Theil-Sen slope: the median of the slopes between all pairs of steps, which single jumps do not move. Prints
a Markdown table and a JSON line, writes the curves with `t2po report` (part "Cluster"); exit status 1 when one grows.

A role is flat when in 10,000 trajectories it would grow by less than 5% of its level, or by less than MEMORY_MB, or
HANDLES handles or threads. A short run says little: noise of a few MB in 500 trajectories is extrapolated to many.

Owns: the size of the run, the slope, the verdict, the table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bench.flat_memory_plot import draw
from controller.metrics import StepMetrics, read_metrics
from controller.process_roles import PROCESS_MEASURES, PROCESS_ROLES
from tests.integration.quick_policy import make_quick_policy
from tests.integration.run_process import RunProcess

OVER = 10_000
"""Trajectories that growth is told for."""
SHARE = 0.05
MEMORY_MB = 20.0
HANDLES = 5.0
STEPS = 100
GROUP_SIZE = 4

SETTINGS = (
    f"rollout.group_size={GROUP_SIZE}", "rollout.max_staleness=1", "env.max_turns=3", "inference.max_num_seqs=64",
    "learner.lr=1e-5", "checkpoint.every_steps=10", "eval.before=false", "inference.verify_every=20",
    "queue.max_groups=4096",
    # What is measured is memory: on a machine that does other things too a deadline must not end the run.
    "rollout.env_step_timeout_s=600", "rollout.trajectory_timeout_s=3000", "inference.request_timeout_s=1200",
    "inference.update_timeout_s=1200",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Growth:
    """Of one measure of one role: its level (median over the second half) and its growth in OVER trajectories."""

    role: str
    measure: str
    level: float
    growth: float

    @property
    def flat(self) -> bool:
        least = MEMORY_MB if self.measure.endswith("_mb") else HANDLES
        return self.growth < max(SHARE * self.level, least)


def slope_of(places: Sequence[float], values: Sequence[float]) -> float:
    """Theil-Sen: the median of (v_j - v_i) / (p_j - p_i) over all pairs of different places. 0 with fewer than two."""
    p, v = np.asarray(places, dtype=float), np.asarray(values, dtype=float)
    first, second = np.triu_indices(len(p), k=1)
    apart = p[second] != p[first]
    slopes = (v[second] - v[first])[apart] / (p[second] - p[first])[apart]
    return float(np.median(slopes)) if len(slopes) else 0.0


def growths_of(steps: Sequence[StepMetrics]) -> list[Growth]:
    """Of every role that was measured, in the order of the tables. Raises ValueError when nothing was."""
    done = np.cumsum([step.values.get("trajectories", 0.0) for step in steps])
    second_half = [number for number, count in enumerate(done) if count > done[-1] / 2] if steps else []
    found = []
    for role in PROCESS_ROLES:
        for measure in PROCESS_MEASURES:
            column = [(done[number], steps[number].values.get(f"{measure}_{role}")) for number in second_half]
            seen = [(place, value) for place, value in column if value is not None and np.isfinite(value)]
            if seen:
                places, values = zip(*seen, strict=True)
                found.append(Growth(role, measure, float(np.median(values)), slope_of(places, values) * OVER))
    if not found:
        raise ValueError("no step of this run has numbers of its processes: it is older than they are, or has no steps")
    return found


def table(growths: Sequence[Growth]) -> str:
    """Markdown: a row a role; of each measure level and growth in 1,000 trajectories."""
    by_role: dict[str, dict[str, Growth]] = {}
    for one in growths:
        by_role.setdefault(one.role, {})[one.measure] = one
    head = [f"{name} ({unit})" for name, (unit, _) in PROCESS_MEASURES.items()]
    lines = [
        "Level, and growth in 1,000 trajectories (Theil-Sen over the second half).\n",
        f"| role | {' | '.join(head)} | verdict |",
        "|---" * (len(head) + 2) + "|",
    ]
    for role, measures in by_role.items():
        grown = [one.measure for one in measures.values() if not one.flat]
        cells = [_cell(measures, measure) for measure in PROCESS_MEASURES]
        lines.append(f"| {role} | {' | '.join(cells)} | {'grows: ' + ', '.join(grown) if grown else 'flat'} |")
    return "\n".join(lines)


def _cell(measures: Mapping[str, Growth], measure: str) -> str:
    one = measures.get(measure)
    return "" if one is None else f"{one.level:.0f}, {one.growth * 1000 / OVER:+.2f}"


def size_of(trajectories: int) -> tuple[int, int]:
    """(groups a step, steps): about STEPS steps, at least as many trajectories as asked for."""
    groups = max(1, trajectories // (STEPS * GROUP_SIZE))
    return groups, -(-trajectories // (groups * GROUP_SIZE))


def train(trajectories: int, folder: Path, policy: Path | None, changes: Sequence[str]) -> Path:
    """The run's folder. RuntimeError with its output when it fails."""
    folder.mkdir(parents=True, exist_ok=True)
    model = policy or folder / "policy"
    if not (model / "config.json").exists():
        make_quick_policy(model)
    groups, steps = size_of(trajectories)
    sizes = (f"model={model}", f"steps={steps}", f"rollout.groups_per_step={groups}")
    run = RunProcess(folder, "flat-memory", *SETTINGS, *sizes, *changes)
    try:
        if run.finish(timeout_s=6 * 3600) != 0:
            raise RuntimeError(f"the run failed:\n{run.output()}")
    finally:
        run.end()
    return run.folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("changes", nargs="*", metavar="key=value")
    parser.add_argument("--trajectories", type=int, default=OVER)
    parser.add_argument("--folder", type=Path, help="where the run is kept; default: a temporary one")
    parser.add_argument("--policy", type=Path, help="default: one that is made in a minute")
    parser.add_argument("--run", type=Path, help="a run that is there")
    parser.add_argument("--plot", type=Path, help="a picture of it, .svg or .png")
    options = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.folder or Path(scratch)).resolve()
        policy = options.policy.resolve() if options.policy else None
        run = options.run or train(options.trajectories, folder, policy, options.changes)
        steps = read_metrics(run / "metrics.jsonl")
        growths = growths_of(steps)
        if options.run or options.folder:
            subprocess.run([sys.executable, "-m", "controller.cli", "report", str(run)], check=False, timeout=600)
    if options.plot:
        draw(steps, options.plot)
    trained = sum(step.values["trajectories"] for step in steps)
    print(f"{trained:.0f} trajectories in {len(steps)} steps\n\n{table(growths)}\n")
    print(json.dumps({"trajectories": trained, "growths": [asdict(one) | {"flat": one.flat} for one in growths]}))
    return 0 if all(one.flat for one in growths) else 1


if __name__ == "__main__":
    sys.exit(main())
