"""The embedded policy: a tokenizer trained on the suite's text and a small Qwen3-shaped model.

Owns: the vocabulary rule and the model's shape. Called by `controller.coldstart`. Must not know: how
the texts were made, or how the model is trained.

The vocabulary. A model of a million parameters learns to copy `go to cabinet 2` fast when that is
one token, so every `verb name number` of the texts is one, and so is every frequent stretch of words
between names (`. In it, you see a `). Anything else falls back to byte-level BPE: no text is unknown.

The first weights. Such a token begins as the sum of a vector for its verb, its name and its number, and
attention begins as "look for tokens like this one and repeat them" (queries equal keys, output is the
transpose of values: mimetic initialisation, arXiv 2305.09828). Both are what a large pretrained model
brings along; with them a cold start of minutes learns to copy from the list of possible actions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

END = "<|endoftext|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}\n"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)
_VERBS = "go to|open|close|examine|use|take|from|move|with|clean|heat|cool|at"
_ENTITY = re.compile(rf"(?:(?<![a-z])(?:{_VERBS}) )?\b[a-z]+ \d+\b")
_PARTS = re.compile(r"(?:(.*) )?([a-z]+) (\d+)")


def _stretches(text: str, markers: re.Pattern[str], names: re.Pattern[str]) -> Iterable[tuple[bool, str]]:
    """Splits `text` into (is a name, piece); markers are dropped, names are entities or bare words."""
    for chunk in markers.split(text):
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
    markers: Sequence[str],
    num_merges: int = 256,
    min_count: int = 20,
    max_phrases: int = 400,
) -> PreTrainedTokenizerFast:
    """A tokenizer for `messages` and `replies`; `words` are bare names that get a token of their own.

    Phrases come from the messages alone: a thought is spelled word by word, as a policy thinks it.
    Deterministic: ties in counts are broken by the text itself.
    """
    marks = re.compile("|".join(map(re.escape, markers)))
    bare = sorted(set(words), key=lambda word: (-len(word), word))
    names = re.compile(_ENTITY.pattern + "|" + r"\b(?:" + "|".join(map(re.escape, bare)) + r")\b")
    entities: Counter[str] = Counter()
    phrases: Counter[str] = Counter()
    spelled: Counter[str] = Counter()
    for texts, stretches in ((messages, phrases), (replies, spelled)):
        for text in texts:
            for is_name, piece in _stretches(text, marks, names):
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
    tokenizer.add_tokens([AddedToken(marker, normalized=False) for marker in markers])
    tokenizer.add_tokens([AddedToken(piece, normalized=False) for _, piece in kept[:max_phrases]])
    tokenizer.add_tokens([AddedToken(name, normalized=False, single_word=True) for name in sorted(entities)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=END, clean_up_tokenization_spaces=False
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def build_model(
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    hidden: int = 128,
    layers: int = 4,
    head_dim: int = 32,
    context: int = 1024,
) -> Qwen3ForCausalLM:
    """A freshly initialised Qwen3-shaped model for the tokenizer; the same weights for the same seed."""
    config = Qwen3Config(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=hidden,
        intermediate_size=hidden * 3,
        num_hidden_layers=layers,
        num_attention_heads=hidden // head_dim,
        num_key_value_heads=hidden // head_dim,
        head_dim=head_dim,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
        for layer in model.model.layers:
            _begin_as_copying(layer.self_attn, hidden, config.head_dim)
        _compose_names(model.model.embed_tokens.weight.data, tokenizer)
    return model


def _begin_as_copying(attention: Any, hidden: int, head_dim: int) -> None:
    """Queries near keys and output near the transpose of values, head by head."""
    scale = hidden**-0.5
    keys, values = attention.k_proj.weight.data, attention.v_proj.weight.data
    keys.normal_(std=scale)
    values.normal_(std=scale)
    num_heads = attention.q_proj.weight.shape[0] // head_dim
    shared = num_heads // (keys.shape[0] // head_dim)
    for head in range(num_heads):
        rows = slice(head * head_dim, (head + 1) * head_dim)
        source = slice(head // shared * head_dim, (head // shared + 1) * head_dim)
        noise = torch.randn_like(keys[source]) * scale * 0.5
        attention.q_proj.weight.data[rows] = keys[source] + noise
        attention.o_proj.weight.data[:, rows] = 0.3 * values[source].T


def _compose_names(embedding: torch.Tensor, tokenizer: PreTrainedTokenizerFast) -> None:
    """`take apple 1` = take + apple + 1 + a little of its own; the bare word `apple` is the same apple."""
    scale = float(embedding.std())
    vectors: dict[str, torch.Tensor] = {}
    for text, index in sorted(tokenizer.get_added_vocab().items()):
        if match := _PARTS.fullmatch(text):
            verb, name, number = match.groups()
            if name not in vectors:
                bare = tokenizer.encode(name, add_special_tokens=False)
                vectors[name] = embedding[bare[0]].clone() if len(bare) == 1 else torch.randn_like(embedding[0]) * scale
            total = vectors[name] + 0.3 * embedding[index]
            for part in (number, verb):
                if part:
                    key = f"part {part}"
                    if key not in vectors:
                        vectors[key] = 0.7 * scale * torch.randn_like(embedding[0])
                    total = total + vectors[key]
            embedding[index] = total
