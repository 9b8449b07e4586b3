"""The embedded policy: a tokenizer trained on the suite's text and a small Qwen3-shaped model.

Owns: the vocabulary rule and the model's shape. Called by `controller.coldstart`. Must not know: how
the texts were made, or how the model is trained.

The vocabulary. A model of a few million parameters learns to copy `cabinet 2` fast when that is one
token, so every `name number` of the texts is one, and so is every frequent stretch of words between
names (`. In it, you see a `). Anything else falls back to byte-level BPE: no text is unknown.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

END = "<|endoftext|>"
MARKERS = ("<think>", "</think>", "<action>", "</action>")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}\n"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)
_MARKER = re.compile("|".join(re.escape(marker) for marker in MARKERS))
_ENTITY = re.compile(r"\b[a-z]+ \d+\b")


def _stretches(text: str, names: re.Pattern[str]) -> Iterable[tuple[bool, str]]:
    """Splits `text` into (is a name, piece); markers are dropped, names are entities or bare words."""
    for chunk in _MARKER.split(text):
        position = 0
        for match in names.finditer(chunk):
            if match.start() > position:
                yield False, chunk[position : match.start()]
            yield True, match.group()
            position = match.end()
        if position < len(chunk):
            yield False, chunk[position:]


def train_tokenizer(
    messages: Sequence[str],
    replies: Sequence[str],
    words: Iterable[str],
    num_merges: int = 256,
    min_count: int = 20,
    max_phrases: int = 400,
) -> PreTrainedTokenizerFast:
    """A tokenizer for `messages` and `replies`; `words` are bare names that get a token of their own.

    Phrases come from the messages alone: a thought is spelled word by word, as a policy thinks it.
    Deterministic: ties in counts are broken by the text itself.
    """
    bare = sorted(set(words), key=lambda word: (-len(word), word))
    names = re.compile(_ENTITY.pattern + "|" + r"\b(?:" + "|".join(map(re.escape, bare)) + r")\b")
    entities: Counter[str] = Counter()
    phrases: Counter[str] = Counter()
    spelled: Counter[str] = Counter()
    for texts, stretches in ((messages, phrases), (replies, spelled)):
        for text in texts:
            for is_name, piece in _stretches(text, names):
                (entities if is_name else stretches)[piece] += 1
    kept = sorted(((-count, piece) for piece, count in phrases.items() if count >= min_count and len(piece) > 1))
    tokenizer = Tokenizer(models.BPE(byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [*phrases.keys(), *spelled.elements()],
        trainers.BpeTrainer(
            vocab_size=1 + len(alphabet) + num_merges,
            special_tokens=[END],
            initial_alphabet=sorted(alphabet),
            show_progress=False,
        ),
    )
    tokenizer.add_tokens([AddedToken(marker, normalized=False) for marker in MARKERS])
    tokenizer.add_tokens([AddedToken(piece, normalized=False) for _, piece in kept[:max_phrases]])
    tokenizer.add_tokens([AddedToken(name, normalized=False, single_word=True) for name in sorted(entities)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=END, clean_up_tokenization_spaces=False
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def build_model(
    vocab_size: int, eos_token_id: int, seed: int, hidden: int = 256, layers: int = 4, context: int = 1024
) -> Qwen3ForCausalLM:
    """A freshly initialised Qwen3-shaped model; the same weights for the same seed."""
    config = Qwen3Config(
        vocab_size=-(-vocab_size // 64) * 64,
        hidden_size=hidden,
        intermediate_size=hidden * 3,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=max(1, hidden // 128),
        head_dim=64,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        eos_token_id=eos_token_id,
        pad_token_id=eos_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config)


def save_policy(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes a plain Hugging Face folder that vLLM and transformers load."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
