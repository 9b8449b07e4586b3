"""TRL's GRPOTrainer on the bench's tokens, for bench/learner.py --trl.

    PYTHONPATH=<folder with trl, datasets, pandas, multiprocess and xxhash> python bench/learner.py --trl

Owns: `grpo_update`. TRL generates, scores and then updates; here only the update is measured, as ours is: its own
loss over given tokens (padded as TRL pads them, in arrival order), backward, clip and AdamW. Entropy is computed by
both. The micro-batch holds as many sequences as the longest one allows in the budget.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

Pairs = list[tuple[np.ndarray, np.ndarray]]


def grpo_update(path: Path, dtype: str, pairs: Pairs, budget: int) -> Callable[[], None]:
    """One update over `pairs`; advantages of plus and minus one in turn."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    model = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype), attn_implementation="sdpa")
    arguments = GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=8,
        num_generations=8,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": ["w1"] * 8}),
        processing_class=AutoTokenizer.from_pretrained(path),
    )
    trainer.current_gradient_accumulation_steps = 1
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    longest = max(len(prompt) for prompt, _ in pairs) + max(len(reply) for _, reply in pairs)
    size = max(1, budget // longest)
    batches = [_inputs(pairs[start : start + size], start) for start in range(0, len(pairs), size)]
    total = sum(len(reply) for _, reply in pairs)

    def run() -> None:
        model.train()
        for batch in batches:
            batch["num_items_in_batch"] = torch.tensor(float(total))
            trainer._compute_loss(model, batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return run


def _inputs(part: Pairs, start: int) -> dict[str, Any]:
    """Prompts padded on the left, completions on the right, as TRL's own."""
    prompts, replies = [prompt for prompt, _ in part], [reply for _, reply in part]
    prompt_ids, prompt_mask = _padded(prompts, left=True)
    completion_ids, completion_mask = _padded(replies, left=False)
    signs = torch.tensor([1.0 if (start + row) % 2 == 0 else -1.0 for row in range(len(part))])
    return {
        "prompt_ids": prompt_ids,
        "prompt_mask": prompt_mask,
        "completion_ids": completion_ids,
        "completion_mask": completion_mask,
        "advantages": signs,
        "old_per_token_logps": torch.full(completion_ids.shape, -6.6),
    }


def _padded(sequences: list[np.ndarray], *, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, sequences))
    ids = torch.zeros(len(sequences), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        place = slice(width - len(sequence), width) if left else slice(0, len(sequence))
        ids[row, place] = torch.from_numpy(sequence.astype(np.int64))
        mask[row, place] = 1
    return ids, mask
