"""The start policy of a run: demonstrations -> tokenizer and model -> supervised fine-tuning -> a folder.

Owns: which policy a run starts from, and the cache of start policies. Called by `controller.train` and
`controller.coldstart_command`. Must not know: reinforcement learning, the engines, who is measured.

A start policy depends only on what `fingerprint` lists, so runs that differ elsewhere (TTI on or off,
another learning rate) share it: their comparison begins from the same weights.

    .policies/<fingerprint>              a start policy that is done
    .policies/<fingerprint>.unfinished   one that is being made: what was collected, and the training's snapshots;
                                         whoever wants this policy next, after a kill, goes on from there
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from controller.attempt_collection import collect_attempts
from controller.attempts import select
from controller.base_policy import check_lengths, encode_demonstrations, smollm2_base, tiny_base
from controller.config import RunConfig
from controller.demonstrations import collect_demonstrations
from controller.durable_files import write_whole
from controller.part_settings import sampling_specs
from controller.policy_folder import PolicyError, check_policy
from controller.ray_session import clean_up_after
from controller.run_folder import take_lock
from envs.environment import require_ready
from envs.panel import load_panel
from envs.records import Bool, Int32

Report = Callable[[str], None]
EMBEDDED = ("tiny", "smollm2")
DEMONSTRATION_VERSION = 2
"""Raised when demonstrations or the embedded model change, so that a cached start policy is not reused."""
PAGE = "coldstart.json"
"""In the policy's folder: what it was made of."""

_OF_EXPERT = {"detour_rate", "kept_searches", "kept_detours"}
_OF_POLICY = {"source", "samples_per_task", "min_score", "max_per_task"}
_OF_NEITHER = {"save_every_s", "evaluate"}
"""Knobs of the cold start that decide the policy only with one source, or never."""


def prepare_policy(config: RunConfig, folder: Path, report: Report) -> Path:
    """The Hugging Face folder that the run starts from: built and cold-started, converted, or as given.

    Embedded policies ("tiny", "smollm2") are cold-started once for a fingerprint, cached below
    `runs_dir`, and copied to `folder`, so that the run is complete without the cache: when `folder` is
    there (a resumed run), it is the policy. A path is used as it is, after checking that it can be, unless
    `coldstart.source` is "policy": then it is what plays.
    """
    if config.model not in EMBEDDED and config.coldstart.source == "expert":
        return start_of(config, report)
    if not folder.exists():
        cached = _cached(config, report)
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(cached, partial)
        partial.rename(folder)
    check_policy(folder, config)
    return folder


def start_of(config: RunConfig, report: Report) -> Path:
    """The policy that plays when `coldstart.source` is "policy": the given one, or the embedded one that an expert
    taught."""
    if config.model in EMBEDDED:
        taught = config.coldstart.model_copy(update={"source": "expert"})
        return _cached(config.model_copy(update={"coldstart": taught}), report)
    source = Path(config.model).expanduser()
    check_policy(source, config)
    return source


@contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """`folder`, made if it is not there, for this process alone; what a killed one left running is ended."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = take_lock(folder, "this cold start")
    try:
        clean_up_after(folder)
        yield folder
    finally:
        os.close(lock)


def _cached(config: RunConfig, report: Report) -> Path:
    cached = (Path(config.runs_dir).expanduser() / ".policies" / fingerprint(config)).absolute()
    if (cached / "config.json").is_file():
        report(f"cold start: reused ({cached})")
        return cached
    with unfinished(cached.with_name(cached.name + ".unfinished")) as work:
        if not (cached / "config.json").is_file():  # else another process has just made it
            _build(config, work, report)
            shutil.rmtree(cached, ignore_errors=True)
            (work / "policy").rename(cached)
        shutil.rmtree(work, ignore_errors=True)
    return cached


def _build(config: RunConfig, work: Path, report: Report) -> None:
    """Puts the policy into `work`/policy, with a page about it; goes on from what is in `work`."""
    if not Path("/dev/nvidiactl").exists():  # else DeepSpeed prints a warning while it looks for an accelerator
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    found: dict[str, Any] = {}
    masks: list[Bool] | None = None
    if config.coldstart.source == "expert":
        base, pairs = _expert_pairs(config, work, report)
    else:
        base = start_of(config, report)
        pairs, masks, found = _policy_pairs(config, base, work, report)
    metrics = _finetune(config, base, work, pairs, masks, report)
    page = {"facts": facts(config), **found, "training": metrics}
    write_whole(work / "policy" / PAGE, json.dumps(page, indent=2, sort_keys=True).encode() + b"\n")


def _expert_pairs(config: RunConfig, work: Path, report: Report) -> tuple[Path, list[tuple[Int32, Int32]]]:
    """The base policy and the demonstrations in its tokens."""
    base, tokenizer = work / "base", None
    if config.model == "smollm2":
        report("cold start: SmolLM2-135M-Instruct, downloaded once (93 MB)")
        partial = work / "base.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(base, ignore_errors=True)
        tokenizer = smollm2_base(config, partial)
        partial.rename(base)
    demonstrations = collect_demonstrations(config, work / "demonstrations.jsonl")
    report(f"cold start: {len(demonstrations)} demonstrated turns on {config.coldstart.num_trajectories} tasks")
    if tokenizer is None:
        tokenizer = tiny_base(config, demonstrations, base)
    pairs = encode_demonstrations(tokenizer, demonstrations)
    check_lengths(config, pairs)
    return base, pairs


def _policy_pairs(
    config: RunConfig, base: Path, work: Path, report: Report
) -> tuple[list[tuple[Int32, Int32]], list[Bool], dict[str, Any]]:
    """What `base` did well, which of its reply tokens were sampled, and how much of it was kept."""
    require_ready(config.env)
    settings = config.coldstart
    report(f"cold start: {base} plays {settings.num_trajectories} trajectories on {config.env.train_panel}")
    attempts = collect_attempts(config, base, work / "attempts.jsonl", report)
    chosen = select(attempts, settings.min_score, settings.max_per_task)
    for line in chosen.lines():
        report(f"cold start: {line}")
    if not chosen.pairs:
        raise PolicyError(
            f"coldstart.source = 'policy': none of {chosen.played} trajectories has a score above "
            f"coldstart.min_score = {settings.min_score:g} and a valid turn ("
            + ", ".join(f"{count} {reason}" for reason, count in chosen.rejected.items())
            + "); begin from a better policy, or raise coldstart.num_trajectories and samples_per_task, or "
            "lower min_score"
        )
    counts = asdict(chosen)
    del counts["pairs"], counts["masks"]
    return list(chosen.pairs), list(chosen.masks), {"selection": counts | {"turns": len(chosen.pairs)}}


def _finetune(
    config: RunConfig,
    base: Path,
    work: Path,
    pairs: list[tuple[Int32, Int32]],
    masks: list[Bool] | None,
    report: Report,
) -> dict[str, float]:
    from learner.finetune import FinetuneProgress
    from learner.finetune_ranks import finetune_in_processes

    first_step: list[int] = []

    def on_progress(progress: FinetuneProgress) -> None:
        if not first_step:
            first_step.append(progress.step)
            if progress.step > 1:
                report(f"cold start: training goes on after step {progress.step - 1}")
        if progress.step % 100 == 0 or progress.step == progress.total_steps:
            rate = progress.tokens / max(progress.elapsed_s, 1e-9)
            report(
                f"cold start: step {progress.step}/{progress.total_steps}  loss {progress.loss:.3f}  "
                f"{rate:,.0f} tokens/s  {progress.elapsed_s:.0f} s"
            )

    result = finetune_in_processes(
        base,
        work / "policy",
        pairs,
        config.coldstart,
        config.seed,
        prompt_loss_weight=config.coldstart.prompt_loss_weight,
        masks=masks,
        snapshots=work / "training",
        on_progress=on_progress,
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
    return result


def facts(config: RunConfig) -> dict[str, Any]:
    """All that decides the policy, as plain values."""
    by_policy = config.coldstart.source == "policy"
    found = {
        "version": DEMONSTRATION_VERSION,
        "model": config.model,
        "seed": config.seed,
        "env": config.env.model_dump(exclude={"eval_panel", "success_reward"}),
        "coldstart": config.coldstart.model_dump(exclude=_OF_NEITHER | (_OF_EXPERT if by_policy else _OF_POLICY)),
        "context": [config.inference.prompt_tokens, config.inference.response_tokens],
        "panel": load_panel(config.env.name, config.env.train_panel).hash,
    }
    if not by_policy:
        return found
    if config.model in EMBEDDED:
        taught = config.coldstart.model_copy(update={"source": "expert"})
        found["plays"] = fingerprint(config.model_copy(update={"coldstart": taught}))
    else:
        found["plays"] = _content(Path(config.model).expanduser())
    found["acting"] = {"tti": config.tti.model_dump(), "tds": config.tds.model_dump()}
    found["sampling"] = [config.inference.dtype, str(sampling_specs(config)["train"])]
    return found


def fingerprint(config: RunConfig) -> str:
    """A short name of `facts`."""
    return hashlib.blake2b(json.dumps(facts(config), sort_keys=True).encode(), digest_size=8).hexdigest()


def _content(folder: Path) -> str:
    """A hash of the weights and of what else of a policy's folder decides what it says."""
    whole = hashlib.blake2b(digest_size=8)
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.json"), *folder.glob("*.jinja")]):
        if path.name != PAGE:
            whole.update(path.name.encode())
            with path.open("rb") as file:
                while block := file.read(1 << 22):
                    whole.update(block)
    return whole.hexdigest()
