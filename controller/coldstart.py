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
import shutil
from collections.abc import Callable
from pathlib import Path

from controller.base_policy import check_lengths, encode_demonstrations, smollm2_base, tiny_base
from controller.config import RunConfig
from controller.demonstrations import collect_demonstrations
from controller.policy_folder import PolicyError, check_policy
from envs.panel import load_panel

Report = Callable[[str], None]
EMBEDDED = ("tiny", "smollm2")
DEMONSTRATION_VERSION = 2
"""Raised when demonstrations or the embedded model change, so that a cached start policy is not reused."""


def prepare_policy(config: RunConfig, folder: Path, report: Report) -> Path:
    """The Hugging Face folder that the run starts from: built and cold-started, converted, or as given.

    Embedded policies ("tiny", "smollm2") are cold-started once for a fingerprint, cached below
    `runs_dir`, and copied to `folder`, so that the run is complete without the cache: when `folder` is
    there (a resumed run), it is the policy. A path is used as it is, after checking that it can be.
    """
    if config.model not in EMBEDDED:
        source = Path(config.model).expanduser()
        check_policy(source, config)
        return source
    if not folder.exists():
        cached = Path(config.runs_dir) / ".policies" / _fingerprint(config)
        if (cached / "config.json").is_file():
            report(f"cold start: reused ({cached})")
        else:
            _build(config, cached, report)
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(cached, partial)
        partial.rename(folder)
    check_policy(folder, config)
    return folder


def write_policy(config: RunConfig, folder: Path, report: Report) -> Path:
    """`prepare_policy` into a folder of the user's own, which must be a new one: what lies there stays."""
    if config.model not in EMBEDDED:
        raise PolicyError(
            f'model = "{config.model}": a folder is used as it is, there is nothing to build; '
            f"give one of {', '.join(EMBEDDED)}"
        )
    if folder.exists():
        raise PolicyError(f"--to {folder}: exists already and nothing is overwritten; remove it or name another")
    return prepare_policy(config, folder, report)


def _build(config: RunConfig, folder: Path, report: Report) -> None:
    if not Path("/dev/nvidiactl").exists():  # else DeepSpeed prints a warning while it looks for an accelerator
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from learner.finetune import FinetuneProgress
    from learner.finetune_ranks import finetune_in_processes

    base = folder.with_name(folder.name + ".base")
    shutil.rmtree(base, ignore_errors=True)
    base.parent.mkdir(parents=True, exist_ok=True)
    tokenizer = None
    if config.model == "smollm2":
        report("cold start: SmolLM2-135M-Instruct, downloaded once (93 MB)")
        tokenizer = smollm2_base(config, base)
    demonstrations = collect_demonstrations(config)
    report(f"cold start: {len(demonstrations)} demonstrated turns on {config.coldstart.num_trajectories} tasks")
    if tokenizer is None:
        tokenizer = tiny_base(config, demonstrations, base)
    pairs = encode_demonstrations(tokenizer, demonstrations)
    check_lengths(config, pairs)

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


def _fingerprint(config: RunConfig) -> str:
    panel = load_panel(config.env.name, config.env.train_panel)
    facts = {
        "version": DEMONSTRATION_VERSION,
        "model": config.model,
        "seed": config.seed,
        "env": config.env.model_dump(exclude={"eval_panel", "success_reward"}),
        "coldstart": config.coldstart.model_dump(),
        "context": [config.inference.prompt_tokens, config.inference.response_tokens],
        "panel": panel.hash,
    }
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=8).hexdigest()
