"""The policies before the cold start: model and tokenizer, and whether demonstrations fit what RL will allow.

Owns: which base a cold start begins from. Called by `controller.coldstart`. Must not know: fine-tuning, caches.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actors.think_markers import check_cap_acts
from controller.config import RunConfig
from controller.demonstrations import collect_demonstrations
from controller.policy_folder import PolicyError
from envs.chat import encode_prompt, encode_reply
from envs.environment import find_environment
from envs.records import Int32
from envs.seeds import derive_seed

PROBED_TRAJECTORIES = 40
"""Demonstrations that show, before all of them are collected, that prompts or replies will not fit."""
MAX_SHARE_CUT = 0.01
"""Share of the demonstrated replies that may be longer than a reply can be."""


def smollm2_base(config: RunConfig, folder: Path) -> Any:
    """Puts the pretrained policy into `folder`; returns its tokenizer, once it is sure to suit the settings."""
    from transformers import AutoTokenizer

    from learner.smollm2 import fetch_smollm2

    source = fetch_smollm2(Path(config.runs_dir) / ".policies" / "download")
    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    few = min(PROBED_TRAJECTORIES, config.coldstart.num_trajectories)
    probe = config.model_copy(update={"coldstart": config.coldstart.model_copy(update={"num_trajectories": few})})
    check_lengths(config, encode_demonstrations(tokenizer, collect_demonstrations(probe)))
    forced_queue = find_environment(config.env.name).forced_queue
    check_cap_acts(tokenizer, config.tti, config.inference.response_tokens, forced_queue)
    shutil.copytree(source, folder)
    return tokenizer


def tiny_base(config: RunConfig, demonstrations: list[tuple[str, str]], folder: Path) -> Any:
    """Writes the embedded policy before fine-tuning to `folder` and returns its tokenizer."""
    from learner.export import write_model_folder
    from learner.tiny_policy import build_model, train_tokenizer

    messages = [message for message, _ in demonstrations]
    replies = [reply for _, reply in demonstrations[:5000]]
    environment = find_environment(config.env.name)
    vocabulary = environment.vocabulary()
    tokenizer = train_tokenizer(messages, replies, vocabulary, environment.markers)
    context = config.inference.prompt_tokens + config.inference.response_tokens
    model = build_model(tokenizer, derive_seed(config.seed, "weights"), vocabulary, context=context)
    write_model_folder(folder, model, tokenizer)
    return tokenizer


def encode_demonstrations(tokenizer: Any, demonstrations: list[tuple[str, str]]) -> list[tuple[Int32, Int32]]:
    return [(encode_prompt(tokenizer, message), encode_reply(tokenizer, reply)) for message, reply in demonstrations]


def check_lengths(config: RunConfig, pairs: Sequence[tuple[Int32, Int32]]) -> None:
    """Raises PolicyError when RL would cut what is demonstrated: another prompt than trained on, or half a reply."""
    limits = config.inference
    remedy = "raise it" + (", or begin from the recipe alfworld-smollm2" if config.model == "smollm2" else "")
    longest = max((len(prompt) for prompt, _ in pairs), default=0)
    if longest > limits.prompt_tokens:
        raise PolicyError(
            f"inference.prompt_tokens = {limits.prompt_tokens}: a demonstrated prompt has {longest} tokens; {remedy}"
        )
    replies = [len(reply) for _, reply in pairs]
    share = sum(length > limits.response_tokens for length in replies) / max(1, len(replies))
    if share > MAX_SHARE_CUT:
        raise PolicyError(
            f"inference.response_tokens = {limits.response_tokens}: {share:.0%} of the demonstrated replies are "
            f"longer, the longest has {max(replies)} tokens; {remedy}"
        )
