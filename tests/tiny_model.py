"""A small random Qwen3 folder with a word tokenizer, for tests that need a real model but not a good one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

VOCAB = 300
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|> {{ message['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tiny_config(vocab: int = VOCAB, layers: int = 2) -> Qwen3Config:
    return Qwen3Config(
        hidden_size=128, num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=2, head_dim=32,
        intermediate_size=256, vocab_size=vocab, tie_word_embeddings=True, max_position_embeddings=1024,
        bos_token_id=None, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    words = ["<|end|>", "<|user|>", "<|assistant|>", "<think>", "</think>", "<action>", "</action>", "\n"]
    words += [f"w{number}" for number in range(VOCAB - len(words))]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>", chat_template=_CHAT_TEMPLATE
    )


def write_tiny_model(folder: Path, seed: int = 0, layers: int = 2, spread: float = 0.02) -> Path:
    """Write the folder; `spread` is the standard deviation of the initial weights (larger: less uniform replies)."""
    torch.manual_seed(seed)
    config = tiny_config(layers=layers)
    config.initializer_range = spread
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def random_pairs(
    count: int, seed: int = 0, prompt: tuple[int, int] = (5, 60), reply: tuple[int, int] = (3, 20)
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Random (prompt_ids, reply_ids) pairs with lengths in the given half-open ranges."""
    rng = np.random.default_rng(seed)
    return [
        (
            rng.integers(1, VOCAB, size=rng.integers(*prompt)).astype(np.int32),
            rng.integers(1, VOCAB, size=rng.integers(*reply)).astype(np.int32),
        )
        for _ in range(count)
    ]
