"""Did retries change how long the trained trajectories are? From the files of a run alone.

    python -m controller.length_bias RUN [RUN ...]

Owns: the comparison. Called by people and by tests. Must not know: how an attempt fails, how it is repeated.

A trajectory that was given up is repeated under the same seeds, from its last accepted turn or from its beginning,
until it is finished (`controller.player`): what is trained is the trajectory that would have been. So retries can bias
the lengths only where no other attempt of the same sibling was trained: those are `num_lost`, which has to be 0. That
the retried ones are longer than the others is no bias: who plays longer meets more faults.
"""

from __future__ import annotations

import gzip
import json
import math
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from controller.audit import AuditReport, judge_file
from controller.run_folder import RunFolder, RunFolderError


@dataclass(frozen=True, slots=True)
class LengthBias:
    """Lengths in turns. `longer`: the probability that a retried trajectory is longer than an undisturbed one, ties
    counted half (Mann and Whitney's U over the number of pairs); 0.5 is no difference, NaN without pairs."""

    num_undisturbed: int
    num_retried: int
    num_lost: int
    mean_undisturbed: float
    mean_retried: float
    longer: float

    def line(self) -> str:
        """For a person."""
        text = f"{self.num_undisturbed} trajectories trained at the first attempt, {self.mean_undisturbed:.2f} turns"
        text += f"; {self.num_retried} after a retry, {self.mean_retried:.2f} turns (longer: {self.longer:.2f})"
        verdict = (
            "no length bias from retries" if not self.num_lost else "their lengths are missing in what was trained"
        )
        return f"{text}; {self.num_lost} given up for good: {verdict}"


def length_bias(report: AuditReport, lengths: Mapping[str, int]) -> LengthBias:
    """`lengths`: turns by trajectory id; a trained one without a length is left out. Groups that were dropped as a
    whole are no matter of retries."""
    trained = [name for name, verdict in report.trajectories.items() if verdict == "trained"]
    finished = {_sibling(name) for name in trained}
    given_up = {
        _sibling(name)
        for name, verdict in report.trajectories.items()
        if verdict == "dropped" and report.groups.get(_sibling(name).rpartition("/")[0]) == "trained"
    }
    retried = [lengths[name] for name in trained if name in lengths and _sibling(name) in given_up]
    undisturbed = [lengths[name] for name in trained if name in lengths and _sibling(name) not in given_up]
    return LengthBias(
        num_undisturbed=len(undisturbed),
        num_retried=len(retried),
        num_lost=len(given_up - finished),
        mean_undisturbed=_mean(undisturbed),
        mean_retried=_mean(retried),
        longer=_longer(retried, undisturbed),
    )


def lengths_of(folder: Path) -> dict[str, int]:
    """Turns by trajectory id, from the files of a run's `trajectories/`."""
    found: dict[str, int] = {}
    for path in sorted(folder.glob("step-*.jsonl.gz")):
        try:
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                for line in lines:
                    row = json.loads(line)
                    found[row["id"]] = len(row["turns"])
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise RunFolderError(f"{path}: not a file of trajectories ({error}); move it away") from error
    return found


def _sibling(trajectory: str) -> str:
    """The id without the number of the attempt."""
    return trajectory.rpartition("/")[0]


def _mean(values: list[int]) -> float:
    return sum(values) / len(values) if values else math.nan


def _longer(these: list[int], those: list[int]) -> float:
    pairs = [(a, b, m * n) for a, m in Counter(these).items() for b, n in Counter(those).items()]
    total = sum(count for _, _, count in pairs)
    return sum(count * ((a > b) + 0.5 * (a == b)) for a, b, count in pairs) / total if total else math.nan


def main(arguments: list[str]) -> int:
    try:
        for path in arguments:
            run = RunFolder.read(Path(path))
            found = length_bias(judge_file(run.audit), lengths_of(run.trajectories))
            print(f"{run.path.name}: {found.line()}")
    except RunFolderError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
