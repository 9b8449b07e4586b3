"""What each part of a run is told, from the run's configuration.

Owns: the mapping from `RunConfig` to the settings of router, inference servers, environment actors, sampling and
learner. Called by `controller.part_actors` and `controller.cluster`. Must not know: actors' handles, Ray.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.rollout import PlaySettings
from actors.settings import InferenceSettings
from controller.config import RunConfig
from controller.router import RouterSettings
from envs.environment import find_environment
from learner.settings import Algorithm

if TYPE_CHECKING:
    from actors.inference import SamplingSpec


def turn_timeout_s(config: RunConfig) -> float:
    """Longest time for one turn, resamples included: it survives the restart of its server."""
    return config.inference.request_timeout_s + config.inference.start_timeout_s


def router_settings(config: RunConfig, index: int) -> RouterSettings:
    """Of the router with that index."""
    return RouterSettings(
        run_seed=config.seed,
        tds=config.tds,
        sampling={},
        tds_in_eval=config.eval.interventions,
        request_timeout_s=config.inference.request_timeout_s,
        turn_timeout_s=turn_timeout_s(config),
        index=index,
        num_routers=config.rollout.num_routers,
    )


def inference_settings(config: RunConfig, name: str, *, trains: bool) -> InferenceSettings:
    """Of the inference server `name` ("inference-2"): as configured, with a port of its own for its engine's metrics.

    Only in a training run: what else plays a run's policy (an evaluation, a calibration) may do so beside it.
    """
    first = config.inference.metrics_port if trains else 0
    port = first + int(name.rpartition("-")[2]) if first else 0
    return config.inference.model_copy(update={"metrics_port": port})


def play_settings(config: RunConfig) -> PlaySettings:
    return PlaySettings(
        env=config.env,
        prompt_tokens=config.inference.prompt_tokens,
        env_step_timeout_s=config.rollout.env_step_timeout_s,
    )


def learner_algorithm(config: RunConfig) -> Algorithm:
    return Algorithm(
        advantage=config.advantage,
        loss=config.loss,
        correction=config.correction,
        critic=config.critic,
        max_response_tokens=config.inference.response_tokens,
        filter_void_turns=config.tds.acts == "void_turn",
    )


def sampling_specs(config: RunConfig) -> dict[str, SamplingSpec]:
    """By purpose. Training samples the policy itself: temperature 1, nothing cut off."""
    from actors.inference import SamplingSpec

    forced_queue = find_environment(config.env.name).forced_queue
    return {
        "train": SamplingSpec(
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            max_tokens=config.inference.response_tokens,
            tti=True,
            forced_queue=forced_queue,
        ),
        "eval": SamplingSpec(
            temperature=config.eval.temperature,
            top_p=config.eval.top_p,
            top_k=config.eval.top_k,
            max_tokens=config.inference.response_tokens,
            tti=config.eval.interventions,
            forced_queue=forced_queue,
        ),
    }
