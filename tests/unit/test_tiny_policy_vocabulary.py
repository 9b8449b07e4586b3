"""The embedded policy: what is one token, that nothing is unknown, and that it begins the same everywhere."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from envs.chat import encode_prompt, encode_reply
from envs.environment import find_environment
from learner.tiny_policy import build_model, train_tokenizer

ALFWORLD = find_environment("alfworld")
MARKERS = ALFWORLD.markers
HINTS = replace(ALFWORLD.vocabulary(), words=("apple", "fridge", "cabinet"))

MESSAGE = (
    "task: put a apple in fridge.\nnow: You arrive at cabinet 2.\ncan: go to fridge 1 | take apple 1 from cabinet 2"
)
REPLY = "<think>here is the apple.</think>\n<action>take apple 1 from cabinet 2</action>"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer([MESSAGE] * 30, [REPLY] * 30, HINTS, MARKERS)


def _pieces(tokenizer: PreTrainedTokenizerFast, text: str) -> list[str]:
    return [tokenizer.decode([index]) for index in tokenizer.encode(text, add_special_tokens=False)]


def test_commands_and_markers_are_single_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    pieces = _pieces(tokenizer, "<action>take apple 1 from cabinet 2</action>")
    assert pieces == ["<action>", "take apple 1", " ", "from cabinet 2", "</action>"]
    for marker in MARKERS:
        assert _pieces(tokenizer, marker) == [marker]


def test_number_is_never_cut_in_two(tokenizer: PreTrainedTokenizerFast) -> None:
    assert "take apple 1" not in _pieces(tokenizer, "take apple 12")


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60))
def test_no_text_is_unknown(text: str) -> None:
    one = train_tokenizer([MESSAGE] * 30, [REPLY] * 30, HINTS, MARKERS)
    assert one.decode(one.encode(text, add_special_tokens=False)) == text


def test_prompt_and_reply_ids(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.decode(encode_prompt(tokenizer, MESSAGE)) == MESSAGE + "\n"
    reply = encode_reply(tokenizer, REPLY)
    assert reply[-1] == tokenizer.eos_token_id and tokenizer.decode(reply[:-1]) == REPLY


def test_first_weights_follow_the_seed(tokenizer: PreTrainedTokenizerFast) -> None:
    one, two, other = (build_model(tokenizer, seed, hidden=64, layers=1) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.model.embed_tokens.weight, other.model.embed_tokens.weight)


def test_names_begin_alike(tokenizer: PreTrainedTokenizerFast) -> None:
    """`apple`, `take apple 1` share the vector of the name: a match between goal and list is there from the start."""
    weight = build_model(tokenizer, 0, HINTS).model.embed_tokens.weight.detach()
    vocabulary = tokenizer.get_vocab()

    def likeness(a: str, b: str) -> float:
        return float(torch.cosine_similarity(weight[vocabulary[a]], weight[vocabulary[b]], dim=0))

    assert likeness("apple", "take apple 1") > 0.4 > 0.25 > abs(likeness("fridge", "take apple 1"))
