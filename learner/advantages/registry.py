"""Which advantage estimators there are, and the one that a knob names.

Owns: `ESTIMATORS`, `find_estimator`, `estimate`. Called by `learner.samples`; `learner.settings` checks names with it.
Must not know: how any estimator works.

To add one: a function `(GroupTurns, AdvantageSettings) -> list[Float64]`, one array [T_i] a trajectory, and one line
below. One's own needs no line: `advantage.estimator = "my_module:my_function"`; it gets the critic's values when it
has an attribute `needs_values` that is true.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from learner.advantages.group_turns import Float64, GroupTurns
from learner.named_function import check_name, find_function
from learner.settings import AdvantageSettings

Estimator = Callable[[GroupTurns, AdvantageSettings], list[Float64]]

ESTIMATORS: dict[str, str] = {
    "dr_grpo": "learner.advantages.group_relative:dr_grpo",
    "gae": "learner.advantages.gae:gae",
    "gigpo": "learner.advantages.gigpo:gigpo",
    "grpo": "learner.advantages.group_relative:grpo",
    "reinforce": "learner.advantages.group_relative:reinforce",
    "reinforce_mean": "learner.advantages.group_relative:reinforce_mean",
    "rloo": "learner.advantages.group_relative:rloo",
}
NEEDS_VALUES = frozenset({"gae"})
"""Built-in estimators that need a critic; the others ignore `GroupTurns.values`."""
COMPARES_SIBLINGS = frozenset({"dr_grpo", "gigpo", "grpo", "reinforce_mean", "rloo"})
"""Built-in estimators that give a trajectory alone nothing."""


def check_estimator(name: str) -> str:
    """`name`, when it can be an estimator's; nothing is imported. UnknownFunction (a ValueError)."""
    return check_name("advantage estimator", name, ESTIMATORS)


def find_estimator(name: str) -> Estimator:
    """The estimator of this name: a built-in one, or `module:function`. UnknownFunction (a ValueError)."""
    return find_function("advantage estimator", name, ESTIMATORS, 2)


def needs_values(name: str) -> bool:
    """Whether the estimator of this name needs a critic. UnknownFunction for one that cannot be loaded."""
    return name in NEEDS_VALUES or bool(getattr(find_estimator(name), "needs_values", False))


def estimate(group: GroupTurns, settings: AdvantageSettings) -> list[Float64]:
    """One advantage a turn by `settings.estimator`: G arrays [T_i], checked to be that, and finite. ValueError."""
    advantages = find_estimator(settings.estimator)(group, settings)
    shapes = [np.shape(values) for values in advantages]
    wanted = [(count,) for count in group.num_turns]
    if shapes != wanted:
        raise ValueError(
            f"advantage estimator {settings.estimator!r} returned arrays of shape {shapes} for trajectories of "
            f"{wanted} turns; one advantage a turn is needed"
        )
    for trajectory, values in enumerate(advantages):
        if not np.all(np.isfinite(values)):
            turn = int(np.flatnonzero(~np.isfinite(values))[0])
            raise ValueError(
                f"advantage estimator {settings.estimator!r}: trajectory {trajectory}, turn {turn} has advantage "
                f"{values[turn]}; advantages must be finite"
            )
    return advantages
