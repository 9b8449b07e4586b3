"""Plain Hugging Face folders: written completely or not at all.

Owns: `write_model_folder`. Called by `learner.learner`, `learner.finetune`, `learner.smollm2` and the cold start.
Must not know: training.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging


def write_model_folder(
    folder: Path,
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    weights: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write config, safetensors (of `weights` where given) and tokenizer to `folder`, replacing what was there.

    The folder is a plain Hugging Face one, which vLLM and transformers load. Everything is written to a
    neighbour folder first and renamed at the end.
    """
    transformers_logging.disable_progress_bar()
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        policy.save_pretrained(fresh, state_dict=weights)
        tokenizer.save_pretrained(fresh)
        replace_folder(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def replace_folder(fresh: Path, folder: Path) -> None:
    """Rename `fresh` to `folder`; what was at `folder` is removed after it has been moved out of the way."""
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
