"""Detectors of the update: how far it moves the policy, how large its gradient is, how old and how foreign its samples.

Owns: `kl_spike`, `gradient_spike`, `staleness`, `off_policy`. Called by `controller.collapse.detection`. Must not know:
states, actions.
"""

from __future__ import annotations

import math

import numpy as np

from controller.collapse.baseline import Series, before, column, measured, median, now, spread
from controller.collapse.finding import Finding, Level
from controller.collapse.outcome_detectors import Outcome, losing
from controller.collapse.settings import CollapseSettings

NOW_STEPS = 3
"""The present is the median of three steps: healthy runs have single updates of 50 times the usual KL."""

EARLY_STEPS = 10

KL_GROWTH, KL_GROWTH_FROM = 10.0, 2 / 3
"""Multiple of the recent KL that is a warning before `kl_limit`, and the share of that from which on it counts."""

LOSING_KL, LOST_KL = 6.0, 10.0
"""Multiples of `kl_limit` that are a collapse while success is being lost, and in any case. At ten times, 0.15, a
reply of 20 tokens is 3 nats off, so one update made it 20 times as likely. Recorded healthy runs stay below 0.05."""

LOW_ESS, LOST_ESS = 0.5, 0.2
"""Effective sample size, as a share: half of the samples worth nothing is a warning, four fifths a collapse when
success is being lost. Recorded healthy runs stay above 0.95."""


def kl_spike(series: Series, settings: CollapseSettings, reached: Outcome) -> Finding:
    """KL of the update in nats a token, `approx_kl`. `kl_limit` is 1.5 times the middle one of the targets that PPO
    was published with (0.003, 0.01, 0.03; arXiv 1707.06347), where implementations of PPO end a step early: a scale
    that every run shares, as too high a learning rate leaves no healthy level to compare with. A collapse at six times
    that when success is being lost, at ten times in any case."""
    values = column(series, "approx_kl")
    level, usual = now(values, NOW_STEPS), median(before(values, NOW_STEPS, settings.window))
    found = Level.HEALTHY
    if level >= settings.kl_limit or (level >= KL_GROWTH_FROM * settings.kl_limit and level >= KL_GROWTH * usual):
        found = Level.WARNING
    if level >= settings.kl_limit * (LOSING_KL if losing(reached, settings) else LOST_KL):
        found = Level.COLLAPSED
    earlier = f", {usual:.2g} before" if math.isfinite(usual) else ""
    return Finding("kl_spike", found, f"KL of an update is {level:.2g} nats a token{earlier}" if found else "")


def gradient_spike(series: Series, settings: CollapseSettings, reached: Outcome) -> Finding:
    """Gradient norm before clipping at `grad_factor` times its recent level; or updates left out because the gradient
    was not finite. A collapse when no update of the last steps was done, or at four times the factor when success is
    being lost."""
    skipped = measured(column(series, "skipped_steps")[-NOW_STEPS:])
    if len(skipped) == NOW_STEPS and np.all(skipped > 0):
        return Finding("gradient_spike", Level.COLLAPSED, f"gradients of {NOW_STEPS} steps in a row were not finite")
    values = column(series, "grad_norm")
    level, earlier = now(values, NOW_STEPS), before(values, NOW_STEPS, settings.window)
    usual = median(earlier)
    factor = level / usual if usual > 0 and level - usual > 4 * spread(earlier) else 0.0
    found = Level.WARNING if factor >= settings.grad_factor or np.any(skipped > 0) else Level.HEALTHY
    if factor >= 4 * settings.grad_factor and losing(reached, settings):
        found = Level.COLLAPSED
    cause = f"gradient norm rose from {usual:.3g} to {level:.3g} ({factor:.0f} times)"
    if factor < settings.grad_factor:
        cause = "a gradient was not finite; its update was left out"
    return Finding("gradient_spike", found, cause if found else "")


def staleness(series: Series, settings: CollapseSettings, reached: Outcome) -> Finding:
    """Samples that are two versions older than at first and twice as old. Never a collapse: the slots bound it."""
    values = column(series, "staleness")
    level, first = now(values, NOW_STEPS), median(measured(values)[:EARLY_STEPS])
    if not level >= max(first + 2, 2 * first):
        return Finding("staleness")
    return Finding("staleness", Level.WARNING, f"samples are {level:.1f} versions old, {first:.1f} at first")


def off_policy(series: Series, settings: CollapseSettings, reached: Outcome) -> Finding:
    """Samples that the policy in training would not have drawn: effective sample size of the importance weights, and KL
    to what sampled (`mismatch_kl`) by the limits of `kl_spike`."""
    share = now(column(series, "weight_ess"), NOW_STEPS)
    kl = now(column(series, "mismatch_kl"), NOW_STEPS)
    lost = losing(reached, settings)
    found, causes = Level.HEALTHY, []
    if share <= LOW_ESS:
        found = Level.COLLAPSED if share <= LOST_ESS and lost else Level.WARNING
        causes.append(f"the importance weights leave {share:.0%} of the samples")
    if math.isfinite(kl) and kl >= settings.kl_limit:
        worst = kl >= settings.kl_limit * (LOSING_KL if lost else LOST_KL)
        found = max(found, Level.COLLAPSED if worst else Level.WARNING)
        causes.append(f"KL of what sampled to what is trained is {kl:.2g} nats a token")
    return Finding("off_policy", found, "; ".join(causes))
