"""Random faults against real runs, judged from their logs: nothing hangs, nothing is lost (docs/chaos.md).

    python -m bench.chaos --folder FOLDER [--runs 100] [--first-seed 0] [--at-once 1]   # seeds that are there are kept
    python -m bench.chaos --folder FOLDER --seed 17 --verbose                           # one again
    python -m bench.chaos --folder FOLDER --table                                       # recovery by kind of fault
    python -m bench.chaos --folder FOLDER --seed 17 --fault "kill: engine" ...          # these faults instead

Owns: the command line, the order of the runs. Each run is judged in a process of its own. Exit status 1 when a run was
not good.
"""

from __future__ import annotations

import argparse
import math
import random
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.chaos import results
from bench.chaos.conductor import LIFE_S, MAX_LIVES, conduct, make_policy
from bench.chaos.fault import KINDS, Fault, draw, schedule
from tests.integration.run_process import ROOT

RUN_LIMIT_S = MAX_LIVES * LIFE_S


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where runs and results are")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=1, help="runs side by side")
    parser.add_argument("--seed", type=int, help="this one alone, whether it is there or not")
    parser.add_argument("--fault", action="append", default=[], help='"kind: target", instead of the seed\'s schedule')
    parser.add_argument("--verbose", action="store_true", help="says what is done, and keeps the run folder")
    parser.add_argument("--table", action="store_true", help="prints the table of the results that are there")
    options = parser.parse_args()
    folder: Path = options.folder.absolute()
    if options.table:
        records = list(results.read(folder).values())
        print(f"{results.summary(records)}\n\n{results.table(records)}")
        return 0 if all(record["good"] for record in records) else 1
    folder.mkdir(parents=True, exist_ok=True)
    if options.seed is not None:
        faults = tuple(_asked(text, options.seed, parser) for text in options.fault) or schedule(options.seed)
        return _one(options.seed, faults, folder, verbose=options.verbose)
    return _many(range(options.first_seed, options.first_seed + options.runs), folder, options.at_once)


def _asked(text: str, seed: int, parser: argparse.ArgumentParser) -> Fault:
    kind, _, target = (part.strip() for part in text.partition(":"))
    if (kind, target) not in KINDS:
        parser.error(f"--fault {text!r}: no such fault; there are: {'; '.join(': '.join(one) for one in KINDS)}")
    return draw((kind, target), random.Random(f"chaos {seed} {text}"))


def _one(seed: int, faults: tuple[Fault, ...], folder: Path, *, verbose: bool) -> int:
    say = print if verbose else lambda text: None
    for fault in faults:
        say(f"{fault.name} at {fault.moment}" + (" for ever" if math.isinf(fault.for_s) else f" for {fault.for_s} s"))
    place = folder / f"seed-{seed}"
    for left in (place, *place.parent.glob(f"{place.name}.*")):
        shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    make_policy(folder)
    record = conduct(seed, faults, folder, say=say)
    results.add(folder, record)
    print(f"seed {seed}: {record['outcome']} after {record['seconds']:.0f} s, {record['lives']} lives: "
          f"{'; '.join(': '.join((one['kind'], one['target'])) for one in record['faults'])}"
          + "".join(f"\n  {line}" for line in (*record["causes"], *record["problems"])), flush=True)  # fmt: skip
    if record["good"] and not verbose:
        shutil.rmtree(place, ignore_errors=True)
    return 0 if record["good"] else 1


def _many(seeds: range, folder: Path, at_once: int) -> int:
    make_policy(folder)
    known = results.read(folder)
    todo = [seed for seed in seeds if seed not in known]
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(lambda seed: _apart(seed, folder), todo))
    records = [record for seed, record in sorted(results.read(folder).items()) if seed in seeds]
    print(f"{results.summary(records)}\n\n{results.table(records)}")
    return 0 if len(records) == len(seeds) and all(record["good"] for record in records) else 1


def _apart(seed: int, folder: Path) -> None:
    """A run in a harness of its own: what it sets in its environment, and its failure, are no other's."""
    command = [sys.executable, "-m", "bench.chaos", "--folder", str(folder), "--seed", str(seed)]
    try:
        subprocess.run(command, check=False, cwd=ROOT, timeout=RUN_LIMIT_S)
    except subprocess.TimeoutExpired:
        print(f"seed {seed}: the harness itself did not end within {RUN_LIMIT_S:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
