"""A small random Qwen3 policy and its byte-level tokenizer, built in seconds; optionally taught the reply format.

The engine tests need real weights, not good ones: sharp enough to show a wrong log-probability, and (taught) writing
`<think>` so that thoughts can be ended.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

MARKERS = ["<think>", "</think>", "<action>", "</action>"]
VOCABULARY = 640


def build_tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>", pad_token="<|pad|>")
    tokenizer.add_tokens(MARKERS)
    tokenizer.add_tokens([f"word{i} " for i in range(VOCABULARY - len(tokenizer))])
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    return tokenizer


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int, layers: int = 2) -> Qwen3ForCausalLM:
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter.mul_(5 if "embed" in name else 2)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def teach_format(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, steps: int = 60) -> None:
    """Replies become `<think>`, words, `</think><action>word</action>` and the end; 8 to 30 words of thought."""
    opening, closing, act, end_act = tokenizer.convert_tokens_to_ids(MARKERS)
    rng = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    first_word = VOCABULARY - 200
    model.train()
    for _ in range(steps):
        rows = []
        for _ in range(16):
            prompt = rng.integers(first_word, VOCABULARY, size=6)
            thought = rng.integers(first_word, VOCABULARY, size=rng.integers(8, 30))
            tail = [closing, act, int(rng.integers(first_word, VOCABULARY)), end_act, tokenizer.eos_token_id]
            row = [*prompt, opening, *thought, *tail]
            rows.append(row + [tokenizer.pad_token_id] * (48 - len(row)))
        ids = torch.tensor(rows)
        labels = ids.clone()
        labels[:, :6] = -100
        labels[ids == tokenizer.pad_token_id] = -100
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> str:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def weights_of(model: Qwen3ForCausalLM, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """What the learner hands over: Hugging Face names, tied head left out."""
    return {
        name: tensor.to(dtype).contiguous() for name, tensor in model.state_dict().items() if name != "lm_head.weight"
    }


@torch.inference_mode()
def reply_logprobs(model: Qwen3ForCausalLM, prompt: np.ndarray, reply: np.ndarray) -> np.ndarray:
    """log p of each reply token, in the model's own number format."""
    ids = torch.tensor(np.concatenate((prompt, reply)), dtype=torch.long)[None]
    logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float()
    rows = torch.arange(len(reply))
    return torch.log_softmax(logits, -1)[rows, torch.tensor(reply, dtype=torch.long)].numpy()
