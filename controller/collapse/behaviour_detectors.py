"""Detectors of how the policy behaves: its entropy, how long it goes on, what it repeats, whether it keeps the format.

Owns: `entropy_collapse`, `entropy_explosion`, `length_explosion`, `repetition`, `format_loss`. Called by
`controller.collapse.detection`. Must not know: states, actions.
"""

from __future__ import annotations

import math

from controller.collapse.baseline import Series, before, column, measured, median, now, spread
from controller.collapse.finding import Finding, Level
from controller.collapse.outcome_detectors import SOLVED, Outcome, losing
from controller.collapse.settings import CollapseSettings

NOW_STEPS = 3
"""The present is the median of three steps: one odd step is none."""

EARLY_STEPS = 5
"""The first level of a signal is the median of its first five steps: a fast collapse must not become its own past."""

CLEAR = 4.0
"""A change below four times the spread of single steps is one that healthy runs make too."""

SMALLEST_SPREAD = 0.1
"""Of a level: a window that happened to be calm must not make everything after it an outlier."""


def entropy_collapse(series: Series, settings: CollapseSettings, reached: Outcome) -> Finding:
    """Entropy at a small share of its first level. Learning takes entropy away as well: where success is above its
    first level, or the task solved, only a fall to a third within some steps, with success being lost, counts. It is a
    collapse when success is being lost."""
    entropy = column(series, "entropy")
    level, first = now(entropy, NOW_STEPS), median(measured(entropy)[:EARLY_STEPS])
    recent, lost = median(before(entropy, NOW_STEPS, EARLY_STEPS)), losing(reached, settings)
    small, sudden = level <= settings.entropy_low * first, level <= recent / 3
    if not first > 0 or (not (lost and sudden) and (not small or reached.learned or reached.now >= SOLVED)):
        return Finding("entropy_collapse")
    cause = f"entropy fell from {first:.3g} to {level:.3g} ({level / first:.0%} of its level over the first steps)"
    return Finding("entropy_collapse", Level.COLLAPSED if lost and small else Level.WARNING, cause)


def entropy_explosion(series: Series, settings: CollapseSettings, reached: Outcome) -> Finding:
    """Entropy at a multiple of its recent level or of its first one. `entropy_high` is a warning; its square a collapse
    when success is being lost, its cube a collapse in any case."""
    entropy = column(series, "entropy")
    level, first = now(entropy, NOW_STEPS), median(measured(entropy)[:EARLY_STEPS])
    factor, usual = _growth(series, "entropy", settings.window)
    factor, usual = max((factor, usual), (level / first if first > 0 else 0.0, first), key=lambda pair: pair[0])
    found = Level.WARNING if factor >= settings.entropy_high else Level.HEALTHY
    power = 2 if losing(reached, settings) else 3
    if factor >= settings.entropy_high**power:
        found = Level.COLLAPSED
    cause = f"entropy rose from {usual:.3g} to {level:.3g} ({factor:.1f} times)"
    return Finding("entropy_explosion", found, cause if found else "")


def length_explosion(series: Series, settings: CollapseSettings, reached: Outcome) -> Finding:
    """Turns or tokens of a trajectory at 1.5 times their recent level, or a fifth of the replies cut off at the length
    limit that were not before. A collapse at twice that when success is being lost."""
    worst, cause = 0.0, ""
    for name, what in (("turns", "turns a trajectory"), ("trajectory_tokens", "tokens a trajectory")):
        factor, usual = _growth(series, name, settings.window)
        if factor / 1.5 > worst:
            worst, cause = factor / 1.5, f"{what} rose from {usual:.3g} to {factor * usual:.3g} ({factor:.1f} times)"
    cut, usual = _rise(series, "truncated", settings.window)
    if (cut - usual) / 0.2 > worst:
        worst, cause = (cut - usual) / 0.2, f"{cut:.0%} of the replies run into the length limit, {usual:.0%} before"
    return _graded("length_explosion", worst, losing(reached, settings), cause)


def repetition(series: Series, settings: CollapseSettings, reached: Outcome) -> Finding:
    """Turns that repeat an earlier one: 10 points more than before and twice as many. A collapse at 20 points when
    success is being lost."""
    level, usual = _rise(series, "repeated_turns", settings.window)
    worst = (level - usual) / 0.1 if level >= 2 * usual else 0.0
    cause = f"{level:.0%} of the turns repeat an earlier one, {usual:.0%} before"
    return _graded("repetition", worst, losing(reached, settings), cause)


def format_loss(series: Series, settings: CollapseSettings, reached: Outcome) -> Finding:
    """Replies that are badly formed or ask for what cannot be done: 10 points more than before and twice as many. A
    collapse at 20 points when success is being lost."""
    worst, cause = 0.0, ""
    for name, what in (("format_invalid", "badly formed"), ("invalid", "invalid")):
        level, usual = _rise(series, name, settings.window)
        if level >= 2 * usual and (level - usual) / 0.1 > worst:
            worst, cause = (level - usual) / 0.1, f"{level:.0%} of the replies are {what}, {usual:.0%} before"
    return _graded("format_loss", worst, losing(reached, settings), cause)


def _growth(series: Series, name: str, window: int) -> tuple[float, float]:
    """(present level as a multiple of the recent one, the recent one); 0 unless clearly above what steps differ by."""
    values = column(series, name)
    level, earlier = now(values, NOW_STEPS), before(values, NOW_STEPS, window)
    usual, noise = median(earlier), spread(earlier)
    if not usual > 0 or not level - usual > CLEAR * max(noise, SMALLEST_SPREAD * usual):
        return 0.0, usual
    return level / usual, usual


def _rise(series: Series, name: str, window: int) -> tuple[float, float]:
    """A share's present and recent level; equal unless clearly apart. (0, 0) when nothing was measured."""
    values = column(series, name)
    level, earlier = now(values, NOW_STEPS), before(values, NOW_STEPS, window)
    usual = median(earlier)
    if not math.isfinite(level) or not math.isfinite(usual):
        return 0.0, 0.0
    return (level, usual) if level - usual > CLEAR * spread(earlier) else (usual, usual)


def _graded(detector: str, worst: float, lost: bool, cause: str) -> Finding:
    """`worst` in units of what is a warning."""
    if worst < 1:
        return Finding(detector)
    return Finding(detector, Level.COLLAPSED if worst >= 2 and lost else Level.WARNING, cause)
