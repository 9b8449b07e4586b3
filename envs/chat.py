"""Messages and replies as token ids: the only place where text of a turn becomes a prompt.

Owns: the chat template call, the reply's closing token, and what is cut when a prompt is too long.
Called by `actors.rollout` (RL), by the cold start and by `learner.finetune` (SFT), so that all of them
see the same prompts (METHOD section 8, defect 10). Must not know: which tokenizer it is given, what a
message says, or who trains on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from envs.records import Int32


class ChatTokenizer(Protocol):
    """What is needed of a transformers `PreTrainedTokenizerFast`."""

    eos_token_id: Any

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any: ...

    def encode(self, text: str, **options: Any) -> Any: ...


def encode_prompt(tokenizer: ChatTokenizer, message: str) -> Int32:
    """One user message -> prompt ids, up to and including the generation prompt."""
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": message}], tokenize=False, add_generation_prompt=True
    )
    return np.asarray(tokenizer.encode(text, add_special_tokens=False), dtype=np.int32)


def encode_reply(tokenizer: ChatTokenizer, reply: str) -> Int32:
    """A reply -> the ids that a policy would have sampled for it: no special tokens, then end of sequence."""
    ids = list(tokenizer.encode(reply, add_special_tokens=False))
    return np.asarray([*ids, tokenizer.eos_token_id], dtype=np.int32)


def fit_prompt(tokenizer: ChatTokenizer, render: Callable[[int], str], num_pairs: int, max_tokens: int) -> Int32:
    """The prompt with as much history as fits into `max_tokens`.

    `render(k)` gives the message with the newest k (observation, action) pairs; it is called with
    `num_pairs`, then with fewer: the oldest history is dropped first, the task and the current
    observation never. Only when the message without any history is still too long (an environment
    that answers with a book) is the middle of its tokens cut out: the instruction at the front and the
    generation prompt at the end stay.
    """
    prompt = encode_prompt(tokenizer, render(num_pairs))
    for pairs in range(num_pairs - 1, -1, -1):
        if len(prompt) <= max_tokens:
            return prompt
        prompt = encode_prompt(tokenizer, render(pairs))
    if len(prompt) > max_tokens:
        head = max_tokens // 2
        prompt = np.concatenate([prompt[:head], prompt[len(prompt) - (max_tokens - head) :]])
    return prompt
