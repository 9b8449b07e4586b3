"""What a run wants to be changed: the part that is short when the learner waits, fewer when groups grow old."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from controller.autoscaling import Autoscaler, AutoscaleSettings, decide_size
from controller.run_size import Size

ON = AutoscaleSettings(enabled=True, window=2, cooldown_steps=3, max_envs=3, max_inference=3)


def step(**changes: float) -> dict[str, float]:
    values = {
        "step_s": 10.0, "wait_s": 1.0, "groups_ready": 0.0, "env_actors": 2.0, "inference_servers": 2.0,
        "busy_environments": 0.5, "busy_generation": 0.5,
    }  # fmt: skip
    return {**values, **changes}


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({}, None),
        ({"wait_s": 5, "busy_generation": 0.95}, Size(inference=3)),
        ({"wait_s": 5, "busy_environments": 0.95}, Size(envs=3)),
        ({"wait_s": 5, "busy_environments": 0.9, "busy_generation": 0.95}, Size(inference=3)),
        ({"wait_s": 5}, None),  # neither is short: what it waits for is something else
        ({"wait_s": 5, "busy_generation": 0.95, "inference_servers": 3}, None),
        ({"wait_s": 5, "busy_environments": 0.95, "env_actors": 3}, None),
        ({"wait_s": 0.1, "groups_ready": 4}, Size(inference=1)),
        ({"wait_s": 0.1, "groups_ready": 3}, None),
        ({"wait_s": 0.1, "groups_ready": 4, "inference_servers": 1}, None),
        ({"wait_s": 1.0, "groups_ready": 4}, None),
        ({"busy_environments": 0.01}, Size(envs=1)),
        ({"busy_environments": 0.01, "env_actors": 1}, None),
    ],
)
def test_autoscaling_decision_by_case(changes: dict[str, float], size: Size | None) -> None:
    assert decide_size(ON, [step(**changes)] * 2, groups_per_step=4) == size


def test_autoscaling_without_steps_or_time_wants_nothing() -> None:
    assert decide_size(ON, [], 4) is None
    assert decide_size(ON, [step(step_s=0)], 4) is None


def test_autoscaler_looks_at_a_window_and_rests_after_a_change() -> None:
    scaler = Autoscaler(ON, 4)
    short = step(wait_s=5, busy_generation=0.95)
    wishes = [scaler.observe(short) for _ in range(8)]
    assert [wish is not None for wish in wishes] == [False, True, False, False, True, False, False, True]
    assert Autoscaler(ON.model_copy(update={"enabled": False}), 4).observe(short) is None


@pytest.mark.parametrize("bad", [{"min_envs": 3, "max_envs": 2}, {"idle_share": 0.5}, {"window": 0}, {"most": 1}])
def test_autoscaling_settings_that_contradict_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AutoscaleSettings(**bad)
