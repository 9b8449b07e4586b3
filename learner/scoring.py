"""Scoring: log-probability and entropy of given tokens under a Hugging Face causal LM.

Owns: `TokenScorer` (the module that the DeepSpeed engine wraps), `load_policy`, `recompute_activations`. Called by
`learner.learner`, `learner.critic` and `learner.finetune`. Must not know: advantages, losses, Ray.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from learner.cpu_layers import use_cpu_layers


class TokenScorer(nn.Module):
    """A causal LM that answers with log-probabilities of given tokens instead of logits.

    The output head runs on the scored positions only, and log-softmax is taken in fp32 whatever the
    number format of the weights.
    """

    def __init__(self, policy: PreTrainedModel) -> None:
        super().__init__()
        self.policy = policy

    def forward(
        self, input_ids: torch.Tensor, positions: torch.Tensor, targets: torch.Tensor, entropy: str = "none"
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """input_ids [B, L], positions [N], targets [N] (see `PackedBatch`) -> log-probabilities [N] fp32 and,
        with entropy "metric" (no gradient) or "loss" (with gradient), entropies [N] in nats."""
        hidden = self.policy.get_decoder()(input_ids=input_ids, use_cache=False).last_hidden_state
        hidden = hidden.reshape(-1, hidden.shape[-1]).index_select(0, positions)
        logits = self.policy.get_output_embeddings()(hidden).float()
        log_probs = torch.log_softmax(logits, dim=-1)
        chosen = log_probs.gather(1, targets[:, None]).squeeze(1)
        if entropy == "none":
            return chosen, None
        with torch.set_grad_enabled(entropy == "loss" and torch.is_grad_enabled()):
            source = log_probs if entropy == "loss" else log_probs.detach()
            entropies = -(source.exp() * source).sum(dim=-1)
        return chosen, entropies


def load_policy(model_path: str | Path, dtype: torch.dtype) -> PreTrainedModel:
    """The causal LM of a Hugging Face folder, in `dtype`, in evaluation mode (no dropout), on the CPU."""
    folder = Path(model_path)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"model path {str(model_path)!r} is not a Hugging Face model folder (no config.json in it); "
            "give a folder that `save_pretrained` wrote"
        )
    transformers_logging.disable_progress_bar()
    policy = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="sdpa", local_files_only=True
    )
    unsupported = [name for name in ("final_logit_softcapping", "logit_scale") if getattr(policy.config, name, None)]
    if unsupported:
        raise ValueError(
            f"model {str(model_path)!r} changes its logits after the output head ({', '.join(unsupported)}); "
            "the learner does not support such models: choose a Qwen, Llama or Mistral model"
        )
    if dtype == torch.float32 and not torch.cuda.is_available():
        use_cpu_layers(policy)
    return policy.eval()


def recompute_activations(policy: torch.nn.Module) -> None:
    """Each layer keeps its input alone and is computed again in the backward pass.

    transformers does it in training mode only; the layers below stay in evaluation mode (no dropout).
    """
    policy.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
    for module in policy.modules():
        if getattr(module, "gradient_checkpointing", False):
            module.training = True
