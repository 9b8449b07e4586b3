"""The learning rate over a run."""

from __future__ import annotations

import pytest

from learner.schedule import learning_rate
from learner.settings import LearnerSettings


def rates(updates: int, progress: list[float], **values: object) -> list[float]:
    settings = LearnerSettings.model_validate({"lr": 0.1, "lr_warmup_steps": 0, "lr_min_ratio": 0.2, **values})
    return [learning_rate(settings, updates, at) for at in progress]


def test_schedule_constant_stays_at_the_peak() -> None:
    assert rates(5, [0.0, 0.5, 1.0]) == [0.1, 0.1, 0.1]


def test_schedule_linear_falls_evenly_to_the_share_asked_for() -> None:
    assert rates(5, [0.0, 0.5, 1.0, 2.0], lr_schedule="linear") == pytest.approx([0.1, 0.06, 0.02, 0.02])


def test_schedule_cosine_falls_slowly_at_both_ends() -> None:
    start, early, half, late, end = rates(5, [0.0, 0.1, 0.5, 0.9, 1.0], lr_schedule="cosine")
    assert (start, half, end) == pytest.approx((0.1, 0.06, 0.02))
    assert start - early < 0.1 * (start - end)
    assert late - end < 0.1 * (start - end)


def test_schedule_warm_up_counts_updates_and_lies_over_the_decay() -> None:
    found = [rates(updates, [0.5], lr_warmup_steps=3, lr_schedule="linear")[0] for updates in range(5)]
    assert found == pytest.approx([0.06 * share for share in (0.25, 0.5, 0.75, 1.0, 1.0)])
