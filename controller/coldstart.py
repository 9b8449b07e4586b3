"""The start policy of a run: demonstrations -> tokenizer and model -> supervised fine-tuning -> a folder.

Owns: which policy a run starts from, and the cache of start policies. Called by `controller.train` and
`t2po coldstart`. Must not know: reinforcement learning, Ray, the engines.

A start policy depends only on what `_fingerprint` lists, so runs that differ elsewhere (TTI on or off,
another learning rate) share it: their comparison begins from the same weights.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from controller.config import RunConfig
from envs.chat import encode_prompt, encode_reply
from envs.panel import load_panel
from envs.seeds import derive_seed

Report = Callable[[str], None]
DEMONSTRATION_VERSION = 2
"""Raised when demonstrations or the embedded model change, so that a cached start policy is not reused."""


class PolicyError(ValueError):
    """A policy that cannot be used; the message names the path, what is missing and the remedy."""


def prepare_policy(config: RunConfig, folder: Path, report: Report) -> Path:
    """The Hugging Face folder that the run starts from: built and cold-started, converted, or as given.

    Embedded policies ("tiny", "smollm2") are cold-started once for a fingerprint, cached below
    `runs_dir`, and copied to `folder`, so that the run is complete without the cache. A path is used as
    it is, after checking that it can be.
    """
    if config.model not in ("tiny", "smollm2"):
        source = Path(config.model).expanduser()
        check_policy(source)
        return source
    cached = Path(config.runs_dir) / ".policies" / _fingerprint(config)
    if not (cached / "config.json").is_file():
        _build(config, cached, report)
    else:
        report(f"cold start: reused ({cached})")
    if not folder.exists():
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(cached, partial)
        partial.rename(folder)
    check_policy(folder)
    return folder


def check_policy(folder: Path) -> None:
    """Raises PolicyError unless `folder` holds a causal LM whose tokenizer can spell the reply format."""
    if not folder.is_dir():
        raise PolicyError(f'model = "{folder}": no such folder; give "tiny", "smollm2" or the path of a model folder')
    for name in ("config.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            raise PolicyError(f"{folder}: {name} is missing; a Hugging Face folder with model and tokenizer is needed")
    if not any(folder.glob("*.safetensors")):
        raise PolicyError(f"{folder}: no *.safetensors file; save the model with save_pretrained()")
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise PolicyError(f"{folder}: the tokenizer does not load ({error}); save it with save_pretrained()") from error
    if tokenizer.eos_token_id is None:
        raise PolicyError(f"{folder}: the tokenizer has no eos token; a reply could never end")
    if not tokenizer.chat_template:
        raise PolicyError(f"{folder}: the tokenizer has no chat template; set tokenizer.chat_template and save it")
    for marker in ("<think>", "</think>", "<action>", "</action>"):
        ids = tokenizer.encode(marker, add_special_tokens=False)
        if not ids or tokenizer.decode(ids).strip() != marker:
            raise PolicyError(f"{folder}: the tokenizer cannot spell {marker!r}; add it with tokenizer.add_tokens()")


def collect_demonstrations(config: RunConfig) -> list[tuple[str, str]]:
    """(message, reply) of demonstrated turns on training tasks, in the exact words of RL's prompts.

    Most turns of a trajectory search or hesitate; only a share of those is kept, so that the rare
    decisions (it is here: take it) are learned in the same few minutes.
    """
    from envs.alfworld.demonstration import Demonstrator
    from envs.alfworld.expert import read_task
    from envs.prompt import turn_message
    from envs.text_env import make_env

    panel = load_panel(config.env.name, config.env.train_panel)
    env = make_env(config.env)
    turns: list[tuple[str, str]] = []
    kept = {
        "search": config.coldstart.kept_searches,
        "lamp": config.coldstart.kept_searches,
        "hesitate": config.coldstart.kept_detours,
    }
    for number in range(config.coldstart.num_trajectories):
        task = panel.tasks[number % len(panel.tasks)]
        rng = random.Random(derive_seed(config.seed, "demonstration", number))
        observation, info = env.reset(options={"task": task})
        demonstrator = Demonstrator(read_task(info["goal"]), rng, config.coldstart.detour_rate)
        history: list[tuple[str, str]] = []
        over = False
        while not over:
            message = turn_message(config.env.prompt, config.env.memory, history, observation, info)
            command, thought = demonstrator.decide(info["admissible"])
            if rng.random() < kept.get(demonstrator.plan, 1.0):
                turns.append((message, f"<think>{thought}</think>\n<action>{command}</action>"))
            history.append((observation, command))
            observation, _, terminated, truncated, info = env.step(command)
            over = terminated or truncated
    return turns


def _build(config: RunConfig, folder: Path, report: Report) -> None:
    if not Path("/dev/nvidiactl").exists():  # else DeepSpeed prints a warning while it looks for an accelerator
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from learner.finetune import FinetuneProgress
    from learner.finetune_ranks import finetune_in_processes

    demonstrations = collect_demonstrations(config)
    report(f"cold start: {len(demonstrations)} demonstrated turns on {config.coldstart.num_trajectories} tasks")
    base = folder.with_name(folder.name + ".base")
    shutil.rmtree(base, ignore_errors=True)
    base.parent.mkdir(parents=True, exist_ok=True)
    tokenizer = _base_policy(config, demonstrations, base)
    pairs = [(encode_prompt(tokenizer, message), encode_reply(tokenizer, reply)) for message, reply in demonstrations]
    longest = max(len(prompt) for prompt, _ in pairs)
    if longest > config.inference.prompt_tokens:
        raise PolicyError(
            f"inference.prompt_tokens = {config.inference.prompt_tokens}: a demonstrated prompt has {longest} tokens; "
            "raise it"
        )

    def on_progress(progress: FinetuneProgress) -> None:
        if progress.step % 100 == 0 or progress.step == progress.total_steps:
            rate = progress.tokens / max(progress.elapsed_s, 1e-9)
            report(
                f"cold start: step {progress.step}/{progress.total_steps}  loss {progress.loss:.3f}  "
                f"{rate:,.0f} tokens/s  {progress.elapsed_s:.0f} s"
            )

    weight = config.coldstart.prompt_loss_weight
    result = finetune_in_processes(
        base, folder, pairs, config.coldstart, config.seed, prompt_loss_weight=weight, on_progress=on_progress
    )
    report(
        f"cold start: done, {result['tokens']:,.0f} tokens in {result['duration_s']:.0f} s"
        + (
            f"; shortened by coldstart.max_duration_s = {config.coldstart.max_duration_s:.0f}, so another machine "
            "would get another policy"
            if result["stopped_by_deadline"]
            else ""
        )
    )
    shutil.rmtree(base, ignore_errors=True)


def _base_policy(config: RunConfig, demonstrations: list[tuple[str, str]], folder: Path) -> Any:
    """Writes the policy before fine-tuning to `folder` and returns its tokenizer."""
    if config.model == "smollm2":
        from transformers import AutoTokenizer

        from learner.smollm2 import fetch_smollm2

        shutil.copytree(fetch_smollm2(Path(config.runs_dir) / ".policies" / "download"), folder)
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    from envs.alfworld.demonstration import type_names
    from learner.export import write_model_folder
    from learner.tiny_policy import build_model, train_tokenizer

    messages = [message for message, _ in demonstrations]
    replies = [reply for _, reply in demonstrations[:5000]]
    tokenizer = train_tokenizer(messages, replies, type_names())
    context = config.inference.prompt_tokens + config.inference.response_tokens
    model = build_model(tokenizer, derive_seed(config.seed, "weights"), context=context)
    write_model_folder(folder, model, tokenizer)
    return tokenizer


def _fingerprint(config: RunConfig) -> str:
    panel = load_panel(config.env.name, config.env.train_panel)
    facts = {
        "version": DEMONSTRATION_VERSION,
        "model": config.model,
        "seed": config.seed,
        "env": config.env.model_dump(exclude={"eval_panel", "success_reward"}),
        "coldstart": config.coldstart.model_dump(exclude={"num_threads", "max_duration_s"}),
        "context": [config.inference.prompt_tokens, config.inference.response_tokens],
        "panel": panel.hash,
    }
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=8).hexdigest()
