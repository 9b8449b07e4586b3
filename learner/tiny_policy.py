"""The embedded policy: a tokenizer trained on the suite's text and a small Qwen3-shaped model.

Owns: the vocabulary rule and the model's shape. Called by `controller.coldstart`. Must not know: how
the texts were made, or how the model is trained.

The vocabulary. A model of a million parameters learns to copy `go to cabinet 2` fast when that is
one token, so every name of the texts is one (the environment says what counts as a name), and so may be every
frequent stretch of words between names (`. In it, you see a `). Anything else falls back to byte-level BPE: no text
is unknown.

The first weights are in `learner.first_weights`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from envs.environment import Vocabulary
from learner.first_weights import begin_as_copying, begin_with_induction, compose_names

END = "<|endoftext|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}\n"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)
ROPE_THETA = {"tokens": 1e4, "spans": 1e6}
"""Base of the rotary embedding's wavelengths: what is far away is found by content in the long ones alone."""
MIN_PHRASE_COUNT = 20
"""How often a stretch between names must occur to become one token."""


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
    messages: Sequence[str], replies: Sequence[str], hints: Vocabulary, markers: Sequence[str]
) -> PreTrainedTokenizerFast:
    """A tokenizer for `messages` and `replies`, which uses `markers`, and of whose texts `hints` says more.

    Phrases come from the messages alone: a thought is spelled word by word, as a policy thinks it.
    Deterministic: ties in counts are broken by the text itself.
    """
    marks = re.compile("|".join(map(re.escape, markers)))
    bare = sorted(set(hints.words), key=lambda word: (-len(word), word))
    words = [r"\b(?:" + "|".join(map(re.escape, bare)) + r")\b"] if bare else []
    names = re.compile("|".join([hints.names, *words]))
    entities: Counter[str] = Counter()
    phrases: Counter[str] = Counter()
    spelled: Counter[str] = Counter()
    for texts, stretches in ((messages, phrases), (replies, spelled)):
        for text in texts:
            for is_name, piece in _stretches(text, marks, names):
                (entities if is_name else stretches)[piece] += 1
    kept = sorted((-count, piece) for piece, count in phrases.items() if count >= MIN_PHRASE_COUNT and len(piece) > 1)
    tokenizer = Tokenizer(models.BPE(byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [*phrases.keys(), *spelled.elements()],
        trainers.BpeTrainer(
            vocab_size=1 + len(alphabet) + hints.num_merges,
            special_tokens=[END],
            initial_alphabet=sorted(alphabet),
            show_progress=False,
        ),
    )
    tokenizer.add_tokens([AddedToken(marker, normalized=False) for marker in markers])
    tokenizer.add_tokens([AddedToken(piece, normalized=False) for _, piece in kept[: hints.max_phrases]])
    whole = all(name[:1].isalnum() and name[-1:].isalnum() for name in entities)
    tokenizer.add_tokens([AddedToken(name, normalized=False, single_word=whole) for name in sorted(entities)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=END, clean_up_tokenization_spaces=False
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def build_model(
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    hints: Vocabulary | None = None,
    hidden: int = 128,
    layers: int = 4,
    head_dim: int = 32,
    context: int = 1024,
) -> Qwen3ForCausalLM:
    """A freshly initialised Qwen3-shaped model for the tokenizer; the same weights for the same seed. `hints`
    as for its tokenizer."""
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
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA[hints.copies if hints else "tokens"]},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
        begin_as_copying(model)
        if hints and hints.parts:
            compose_names(model.model.embed_tokens.weight.data, tokenizer, re.compile(hints.parts))
        if hints and hints.copies == "spans":
            begin_with_induction(model)
    return model
