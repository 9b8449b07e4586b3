"""A policy for end-to-end runs, taught in seconds: mostly well-formed replies, seldom a good action.

Small enough to start fast, and varied enough that siblings differ, so that a step has something to learn from.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from controller.config import RunConfig, validate
from controller.demonstrations import collect_demonstrations
from envs.chat import encode_prompt, encode_reply
from envs.environment import find_environment
from learner.export import write_model_folder
from learner.finetune import finetune
from learner.settings import ColdstartSettings
from learner.tiny_policy import build_model, train_tokenizer

THOUGHTS = ("go on.", "let me see.", "next step.", "look around first.", "i need it. let me go on.")


def make_quick_policy(folder: Path, seconds: float = 40.0) -> Path:
    """A Hugging Face folder; replies are `<think>` a few words `</think><action>` some command `</action>`."""
    config: RunConfig = validate({"coldstart": {"num_trajectories": 60}, "env": {"max_turns": 6}}, source="test")
    rng = random.Random(0)
    turns = []
    for message, reply in collect_demonstrations(config):
        command = reply.split("<action>")[1].removesuffix("</action>")
        turns.append((message, f"<think>{rng.choice(THOUGHTS)}</think>\n<action>{command}</action>"))
    messages, replies = [message for message, _ in turns], [reply for _, reply in turns]
    alfworld = find_environment("alfworld")
    hints = replace(alfworld.vocabulary(), words=("table", "drawer", "cabinet"))
    tokenizer = train_tokenizer(messages, replies, hints, alfworld.markers)
    base = folder.with_name(folder.name + "-base")
    write_model_folder(base, build_model(tokenizer, 0, hints, hidden=128, layers=2), tokenizer)
    pairs = [(encode_prompt(tokenizer, message), encode_reply(tokenizer, reply)) for message, reply in turns]
    settings = ColdstartSettings(
        epochs=12, lr=5e-3, batch_tokens=2048, max_duration_s=seconds, num_threads=1, num_trajectories=60
    )
    finetune(base, folder, pairs, settings, seed=0)
    return folder
