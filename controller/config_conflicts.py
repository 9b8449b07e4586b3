"""What a configuration's sections ask for that cannot be had together.

Owns: the checks across sections. Called by `controller.config`, which tells a person and owns the checks of each knob.
Must not know: how a configuration is read, Ray or any component that reads the values.

Each problem is one line that begins with the key to change: key, value, why not and what instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from actors.settings import MARK_TOKENS
from envs.environment import find_environment
from learner.advantages.registry import COMPARES_SIBLINGS

if TYPE_CHECKING:
    from controller.config import RunConfig


def conflicts(config: RunConfig) -> list[str]:
    """All of them; none when the configuration can be used."""
    return [
        *_interventions(config),
        *_thresholds(config),
        *_training(config),
        *_environment(config),
        *_capacity(config),
    ]


def _interventions(config: RunConfig) -> Iterator[str]:
    room = config.inference.response_tokens - MARK_TOKENS
    if config.tti.acts != "off" and config.tti.think_cap >= room:
        yield (
            f"tti.think_cap = {config.tti.think_cap}: must be below inference.response_tokens - {MARK_TOKENS} = "
            f"{room}, or it never acts: the marks around a thought take {MARK_TOKENS} tokens or more"
        )
    if config.tti.acts == "paper" and config.tti.window + 1 >= config.tti.think_cap:
        yield (
            f"tti.window = {config.tti.window}: must be below tti.think_cap - 1 = {config.tti.think_cap - 1}, or no "
            "thought is long enough for it"
        )
    if config.tti.acts == "paper" and config.tti.min_tokens >= config.tti.think_cap:
        yield (f"tti.min_tokens = {config.tti.min_tokens}: must be below tti.think_cap = {config.tti.think_cap}")


def _thresholds(config: RunConfig) -> Iterator[str]:
    """Where thresholds are tracked."""
    tracking = config.calibration
    for rate, section, acts, name, value in (
        ("cut_share", "tti", config.tti.acts, "epsilon", config.tti.epsilon),
        ("resampled_share", "tds", config.tds.acts, "eta", config.tds.eta),
    ):
        if not getattr(tracking, rate):
            continue
        low, high = getattr(tracking, f"{name}_min"), getattr(tracking, f"{name}_max")
        if acts != "paper":
            yield (
                f"calibration.{rate} = {getattr(tracking, rate)}: moves {section}.{name}, which does nothing at "
                f'{section}.variant = "{acts}"; set it to 0, or the variant to "paper"'
            )
        elif not low <= value <= high:
            yield (
                f"{section}.{name} = {value}: must be from calibration.{name}_min to calibration.{name}_max, "
                f"{low} to {high}"
            )
    if tracking.cut_share and config.tti.signal == "release":
        yield 'calibration.cut_share: needs an epsilon, which tti.signal = "release" does not have'
    if tracking.resampled_share:
        for level in ("on_warning", "on_collapse"):
            if "raise_eta" in getattr(config.collapse, level):
                yield (
                    f"collapse.{level} = raise_eta: would do nothing: with calibration.resampled_share = "
                    f"{tracking.resampled_share} tds.eta follows the rate; leave it out, or set "
                    "calibration.resampled_share to 0"
                )


def _training(config: RunConfig) -> Iterator[str]:
    if config.rollout.group_size < 2 and config.advantage.estimator in COMPARES_SIBLINGS:
        yield (
            f"rollout.group_size = {config.rollout.group_size}: advantage.estimator = "
            f"{config.advantage.estimator!r} compares siblings and needs at least 2"
        )
    if config.rollout.group_size < 2 and config.advantage.keep_groups != "all":
        yield (
            f"rollout.group_size = {config.rollout.group_size}: advantage.keep_groups = "
            f'"{config.advantage.keep_groups}" would drop every group; it needs at least 2'
        )
    if config.critic.warmup_steps and config.critic.warmup_steps >= config.steps > 0:
        yield (
            f"critic.warmup_steps = {config.critic.warmup_steps}: must be below steps = {config.steps}, or the policy "
            "is never trained"
        )


def _environment(config: RunConfig) -> Iterator[str]:
    if config.env.train_panel == config.env.eval_panel:
        yield f"env.eval_panel = {config.env.eval_panel!r}: must differ from env.train_panel"
    environment = find_environment(config.env.name)
    for key in ("train_panel", "eval_panel"):
        panel = getattr(config.env, key)
        if panel not in environment.panels:
            known = ", ".join(environment.panels)
            yield f"env.{key} = {panel!r}: {config.env.name} has no such panel; use one of {known}"
    search = config.env.search
    if config.env.name == "search" and search.longest_s >= config.rollout.env_step_timeout_s:
        yield (
            f"env.search.tries = {search.tries} of env.search.timeout_s = {search.timeout_s:g} with their waits "
            f"can take {search.longest_s:g} s: must be below rollout.env_step_timeout_s = "
            f"{config.rollout.env_step_timeout_s:g}, or the environment is given up before the search is"
        )


def _capacity(config: RunConfig) -> Iterator[str]:
    """Ports, and places in the queue."""
    first, engines = config.inference.metrics_port, config.inference.num_servers
    if first and first <= config.metrics.port < first + engines:
        yield (
            f"inference.metrics_port = {first}: the engines' ports are {first} to {first + engines - 1}, and "
            f"metrics.port = {config.metrics.port} is one of them; choose other ones"
        )
    if first + engines - 1 > 65535:
        yield f"inference.metrics_port = {first}: must be at most 65536 - inference.num_servers"
    # all slots, and the step whose groups are acknowledged only when it is saved: else producers wait for that
    needed = config.rollout.groups_per_step * (config.rollout.max_staleness + 1) + config.most_groups_per_step
    if needed > config.queue.max_groups:
        yield (
            f"queue.max_groups = {config.queue.max_groups}: must hold rollout.groups_per_step x "
            f"(rollout.max_staleness + 1 + advantage.refill) = {needed} groups"
        )
