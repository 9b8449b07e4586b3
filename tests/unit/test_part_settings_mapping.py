"""What the parts are told: training samples the bare policy, evaluation has no interventions unless asked."""

from __future__ import annotations

import dataclasses

from controller.config import RunConfig
from controller.part_settings import learner_algorithm, play_settings, router_settings, sampling_specs, turn_timeout_s

BASE = {"model": "tiny", "env": {"train_panel": "train", "eval_panel": "unseen"}}


def config(**sections: object) -> RunConfig:
    return RunConfig.model_validate({**BASE, **sections})


def test_training_samples_the_policy_itself() -> None:
    spec = sampling_specs(config(eval={"temperature": 0.3, "top_p": 0.5, "top_k": 7}))["train"]
    assert (spec.temperature, spec.top_p, spec.top_k, spec.tti) == (1.0, 1.0, 0, True)


def test_evaluation_has_its_own_sampling_and_interventions_only_when_asked() -> None:
    spec = sampling_specs(config(eval={"temperature": 0.3, "top_p": 0.5, "top_k": 7}))["eval"]
    assert (spec.temperature, spec.top_p, spec.top_k, spec.tti) == (0.3, 0.5, 7, False)
    asked = config(eval={"interventions": True})
    assert sampling_specs(asked)["eval"].tti
    assert router_settings(asked, 0).tds_in_eval
    assert not router_settings(config(), 0).tds_in_eval


def test_a_turn_outlives_the_restart_of_its_server() -> None:
    settings = config(inference={"request_timeout_s": 50.0, "start_timeout_s": 70.0})
    assert turn_timeout_s(settings) == router_settings(settings, 0).turn_timeout_s == 120.0


def test_a_router_knows_which_of_them_it_is() -> None:
    told = [router_settings(config(rollout={"num_routers": 3}), index) for index in range(3)]
    assert [(one.index, one.num_routers) for one in told] == [(0, 3), (1, 3), (2, 3)]


def test_players_get_the_run_s_environment_and_prompt_length() -> None:
    settings = config(inference={"prompt_tokens": 333, "response_tokens": 99})
    played = play_settings(settings)
    assert dataclasses.asdict(played)["prompt_tokens"] == 333
    assert played.env == settings.env


def test_the_learner_is_told_the_whole_algorithm() -> None:
    settings = config(algorithm="dr_grpo", inference={"response_tokens": 99}, tds={"variant": "void_turn"})
    algorithm = learner_algorithm(settings)
    assert (algorithm.advantage, algorithm.loss) == (settings.advantage, settings.loss)
    assert (algorithm.correction, algorithm.critic) == (settings.correction, settings.critic)
    assert (algorithm.max_response_tokens, algorithm.filter_void_turns) == (99, True)
    assert not learner_algorithm(config()).filter_void_turns
