"""A step goes along the row of groups until it has enough that are kept, in whatever order they come."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from controller.step_groups import StepGroups, is_kept_by
from envs.records import TrajectoryGroup
from learner.settings import AdvantageSettings
from tests.fakes import make_group


def the_row(kept: list[bool], size: int, most: int) -> int:
    """How many groups a step takes that looks at one after another."""
    taken = found = 0
    while found < size and taken < most:
        found += kept[taken]
        taken += 1
    return taken


@pytest.mark.parametrize("seed", range(30))
def test_step_is_the_same_in_whatever_order_groups_come(seed: int) -> None:
    rng = random.Random(seed)
    size, first = rng.randint(1, 5), rng.randint(0, 9)
    most = rng.randint(size, 3 * size)
    kept = [rng.random() < rng.choice([0.1, 0.5, 0.9]) for _ in range(most)]
    drops: list[None] = []
    step = StepGroups(first, size, most, lambda group: kept[group.index - first], lambda: drops.append(None))
    while waiting := [index for index in step.indices if not step.is_judged(index)]:
        step.judge(make_group(rng.choice(waiting)))
    assert step.indices == range(first, first + the_row(kept, size, most))
    assert [step.is_kept(make_group(index)) for index in step.indices] == kept[: len(step.indices)]
    assert len(drops) == kept[: len(step.indices)].count(False)


def won_by(group: TrajectoryGroup, *won: bool) -> TrajectoryGroup:
    pairs = zip(group.trajectories, won, strict=True)
    return replace(group, trajectories=tuple(replace(one, won=is_won) for one, is_won in pairs))


def test_step_keeps_what_the_knob_says() -> None:
    keep = is_kept_by(AdvantageSettings(keep_groups="mixed_success"))
    assert [keep(won_by(make_group(0), *won)) for won in ((True, False), (True, True), (False, False))] == [
        True, False, False,
    ]  # fmt: skip
    assert is_kept_by(AdvantageSettings())(won_by(make_group(0), True, True))
