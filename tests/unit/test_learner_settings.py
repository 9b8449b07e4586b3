"""Knobs of the learner that depend on each other."""

from __future__ import annotations

import pytest

from controller.config import ConfigError, load_config
from learner.learner_actor import actor_options, gpus_a_rank
from learner.settings import LearnerSettings


@pytest.mark.parametrize(("offload", "least"), [("none", 0), ("optimizer", 1), ("optimizer+parameters", 3)])
def test_learner_offload_needs_what_it_offloads_to_be_split(offload: str, least: int) -> None:
    for stage in range(4):
        overrides = [f"learner.offload={offload}", f"learner.zero_stage={stage}"]
        if stage >= least:
            assert load_config("alfworld", overrides).learner.offload == offload
        else:
            with pytest.raises(ConfigError, match=rf"needs learner\.zero_stage = {least} or more, it is {stage}"):
                load_config("alfworld", overrides)


def test_learner_ranks_get_a_gpu_each_or_none() -> None:
    def gpus(device: str, ranks: int, there: float) -> int:
        return gpus_a_rank(LearnerSettings.model_validate({"device": device, "num_ranks": ranks}), there)

    assert [gpus("auto", 2, there) for there in (0, 1, 2, 8)] == [0, 0, 1, 1]
    assert gpus("cpu", 1, 8) == 0
    assert gpus("gpu", 8, 8) == 1
    with pytest.raises(ValueError, match="2 ranks need a GPU each, Ray has 1; lower learner.num_ranks"):
        gpus("gpu", 2, 1)


def test_learner_rank_without_a_gpu_sees_none() -> None:
    assert actor_options(LearnerSettings())["runtime_env"]["env_vars"]["CUDA_VISIBLE_DEVICES"] == ""
    assert "CUDA_VISIBLE_DEVICES" not in actor_options(LearnerSettings(), 1)["runtime_env"]["env_vars"]
