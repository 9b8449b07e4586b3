"""The first weights of the embedded policy: what a large pretrained model brings along, written down.

Owns: how attention and embeddings begin. Called by `learner.tiny_policy`. Must not know: tokenizers' vocabulary rule,
training.

With random first weights, a model of a million parameters needs more tokens than a cold start of minutes has before
it learns to copy from its prompt. So heads begin as copying heads, tokens with equal parts with alike vectors, and,
where what is copied spans several tokens, the first two layers begin as an induction circuit (arXiv 2209.11895): a
head that looks at the token before, and one that looks for what came after an earlier occurrence of the present token.
"""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

FIRST_LAYER_REST = 0.2
"""Output of the other heads of the first layer, beside what it would be: they must not drown the circuit."""
CONSTANT_SHARE = 0.7
"""Size of the part that all embeddings share, beside a token's own: by it a head can look at a place."""
SHARPNESS = (3.0, 2.0)
"""How much sharper than usual attention begins in the first two layers, where the circuit is."""
EMBEDDING_SCALE = 6.0
"""Size of the embeddings beside the usual: with tied weights it is also the size of the logits."""
FARTHEST = 300
"""Tokens over which a content is recognised: only rotary dimensions that turn less than a radian in them take part."""


def begin_as_copying(model: Qwen3ForCausalLM) -> None:
    """Every head looks for tokens like the present one and repeats them: queries near keys, output near the transpose
    of values (mimetic initialisation, arXiv 2305.09828)."""
    for layer in model.model.layers:
        _copy_alike(layer.self_attn, model.config.hidden_size, model.config.head_dim)


def _copy_alike(attention: Any, hidden: int, head_dim: int) -> None:
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


def begin_with_induction(model: Qwen3ForCausalLM) -> None:
    """Head 0 of the first layer writes the token before into each token; all heads of the second but one find the
    places where the present token is the one before, and repeat what stands there, each a part of it. Other heads stay
    as they are. Embeddings are larger than usual, so that what is repeated is also what is likely: a circuit that does
    not pay from the first step is trained away."""
    hidden, head_dim = model.config.hidden_size, model.config.head_dim
    embedding = model.model.embed_tokens.weight.data
    embedding *= EMBEDDING_SCALE
    embedding[:, 0] = CONSTANT_SHARE * float(embedding.std()) * math.sqrt(hidden)
    theta = model.config.rope_parameters["rope_theta"]
    frequencies = theta ** (-torch.arange(head_dim // 2) / (head_dim // 2))
    # two subspaces that do not overlap: what a token is, and what the one before it is
    basis = torch.linalg.qr(torch.randn(hidden, 2 * head_dim))[0].T.contiguous()
    basis[:, 0] = 0.0
    own, before = basis[:head_dim], basis[head_dim:]
    first, second = (layer.self_attn for layer in model.model.layers[:2])
    for attention, sharpness in zip((first, second), SHARPNESS, strict=True):
        attention.q_norm.weight.data *= sharpness
    _look_one_back(first, own, before, frequencies)
    _look_behind_alike(second, own, before, frequencies * FARTHEST < 1)


def _look_one_back(
    attention: Any, own: torch.Tensor, before: torch.Tensor, frequencies: torch.Tensor, num_pairs: int = 5
) -> None:
    """Keys and queries are one vector, the queries' turned back by one place: they meet where the distance is 1."""
    head_dim, half = len(own), len(frequencies)
    key = (torch.arange(head_dim) < num_pairs).float()
    query = torch.cat([torch.cos(frequencies) * key[:half], -torch.sin(frequencies) * key[:half]])
    for projection, vector in ((attention.q_proj, query), (attention.k_proj, key)):
        weight = projection.weight.data[:head_dim]
        weight.normal_(std=0.02 * weight.shape[1] ** -0.5)
        weight[:, 0] = vector
    attention.v_proj.weight.data[:head_dim] = own
    attention.o_proj.weight.data *= FIRST_LAYER_REST
    attention.o_proj.weight.data[:, :head_dim] = 0.6 * before.T


def _look_behind_alike(attention: Any, own: torch.Tensor, before: torch.Tensor, slow: torch.Tensor) -> None:
    head_dim, hidden = own.shape
    taking_part = torch.cat([slow, slow]).float()[:, None]
    parts = torch.linalg.qr(torch.randn(hidden, hidden))[0]
    parts[:, 0] = 0.0
    for first in range(0, len(attention.q_proj.weight) - head_dim, head_dim):
        rows = slice(first, first + head_dim)
        attention.q_proj.weight.data[rows] = own * taking_part
        attention.k_proj.weight.data[rows] = before * taking_part
        attention.v_proj.weight.data[rows] = parts[rows]
        attention.o_proj.weight.data[:, rows] = 2.0 * parts[rows].T


def compose_names(embedding: torch.Tensor, tokenizer: PreTrainedTokenizerFast, parts: re.Pattern[str]) -> None:
    """`take apple 1` = take + apple + 1 + a little of its own; the bare words `apple` are the same apple."""
    scale = float(embedding.std())
    vectors: dict[str, torch.Tensor] = {}
    for text, index in sorted(tokenizer.get_added_vocab().items()):
        if match := parts.fullmatch(text):
            groups = match.groupdict()
            name = groups.pop("name")
            if name not in vectors:
                vectors[name] = _of_words(name, embedding, tokenizer, scale)
            total = vectors[name] + 0.3 * embedding[index]
            for part in groups.values():
                if part:
                    key = f"part {part}"
                    if key not in vectors:
                        vectors[key] = 0.7 * scale * torch.randn_like(embedding[0])
                    total = total + vectors[key]
            embedding[index] = total


def _of_words(name: str, embedding: torch.Tensor, tokenizer: PreTrainedTokenizerFast, scale: float) -> torch.Tensor:
    """The vector of a name: that of its words, where each is a token, at the beginning of a text or within one."""
    for spelling in (name, f" {name}"):
        tokens = tokenizer.encode(spelling, add_special_tokens=False)
        if len(tokens) <= len(name.split()):
            vector: torch.Tensor = embedding[tokens].sum(0) / len(tokens) ** 0.5
            return vector
    return torch.randn_like(embedding[0]) * scale
