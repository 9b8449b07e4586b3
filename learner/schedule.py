"""The learning rate over a run.

Owns: `learning_rate`. Called by `learner.learner`. Must not know: optimizers, engines.

The warm-up counts updates, so that AdamW's first ones, whose statistics are young, are small. The decay follows the
steps of the run: a step that trained nothing does not put it off, and it ends with the run.
"""

from __future__ import annotations

import math

from learner.settings import LearnerSettings


def learning_rate(settings: LearnerSettings, updates: int, progress: float) -> float:
    """Of the update after `updates` others, at `progress` of the run, 0 (its start) to 1 (its end)."""
    warm = min(1.0, (updates + 1) / (settings.lr_warmup_steps + 1))
    return settings.lr * warm * _decay(settings, min(max(progress, 0.0), 1.0))


def _decay(settings: LearnerSettings, progress: float) -> float:
    low = settings.lr_min_ratio
    if settings.lr_schedule == "linear":
        return 1.0 - (1.0 - low) * progress
    if settings.lr_schedule == "cosine":
        return low + (1.0 - low) * 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0
