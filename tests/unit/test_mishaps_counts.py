"""What went wrong and was dealt with, from a run's metrics."""

from __future__ import annotations

import math
from collections import Counter

from controller.metric_definitions import METRICS
from controller.mishaps import EVER, STEPS, TOTALS, Tally, mishap_line, mishaps, tally_of


def test_mishaps_of_a_quiet_run_are_none() -> None:
    assert mishaps([{"success": 1.0, "cut_observations": 0.0, "restarts_env-0": 0.0}]) == {}
    assert mishap_line({}) == ""


def test_mishaps_are_summed_over_steps_and_lives() -> None:
    steps = [
        {"failed_attempts_EnvFailure": 2.0, "cut_observations": 1.0, "foreign_entries": 3.0},
        {"failed_attempts_EnvFailure": 2.0, "cut_observations": 1.0, "foreign_entries": 3.0, "skipped_steps": math.nan},
        # a resume of a run that is older than Tally: the counts begin again, those of the queue do not
        {"failed_attempts_EnvFailure": 1.0, "failed_attempts_EnvTimeout": 1.0, "foreign_entries": 4.0},
        {"failed_attempts_EnvFailure": 4.0, "failed_attempts_EnvTimeout": 1.0, "foreign_entries": 4.0, "score": None},
    ]
    found = mishaps(steps)
    assert found == {
        "failed attempts": {"EnvFailure": 6, "EnvTimeout": 1},
        "observations cut": {"": 2},
        "foreign queue entries": {"": 4},
    }
    assert mishap_line(found) == (
        "failed attempts 7 (EnvFailure 6, EnvTimeout 1), observations cut 2, foreign queue entries 4"
    )


def test_tally_is_read_from_the_metrics_of_a_step() -> None:
    values = {"restarts_env-0": 2.0, "failed_attempts_EnvTimeout": 1.0, "failed_attempts_x": math.nan, "success": 1.0}
    assert tally_of(values) == Tally(Counter({"env-0": 2}), Counter({"EnvTimeout": 1}))


def test_mishaps_read_metrics_that_there_are() -> None:
    assert {name for name in {**EVER, **STEPS} if name not in METRICS} == set()
    assert set(TOTALS) == {"repeated_groups", "webhook_failures"}
