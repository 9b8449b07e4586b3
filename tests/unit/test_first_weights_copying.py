"""The first weights of the embedded policy: what its heads look at before anything is trained."""

from __future__ import annotations

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from learner.first_weights import begin_as_copying, begin_with_induction

VOCABULARY = 2048


def fresh_model(*, induction: bool) -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, head_dim=32, tie_word_embeddings=True, attn_implementation="eager",
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    begin_as_copying(model)
    if induction:
        begin_with_induction(model)
    return model


def attention(model: Qwen3ForCausalLM, ids: torch.Tensor, layer: int) -> torch.Tensor:
    """[batch, query, key] of head 0."""
    with torch.no_grad():
        return model(ids, output_attentions=True).attentions[layer][:, 0]


def test_the_first_layer_looks_one_token_back() -> None:
    ids = torch.randint(0, VOCABULARY, (4, 120))
    back = attention(fresh_model(induction=True), ids, 0).diagonal(offset=-1, dim1=1, dim2=2)
    assert float(back.mean()) > 0.6


def test_the_second_layer_looks_behind_an_earlier_occurrence() -> None:
    first = torch.randperm(VOCABULARY)[:200].reshape(1, 200)
    ids = torch.cat([first, first[:, 50:90]], 1)
    shares = []
    for induction in (True, False):
        seen = attention(fresh_model(induction=induction), ids, 1)[0]
        shares.append(float(torch.stack([seen[200 + k, 51 + k] for k in range(1, 38)]).mean()))
    assert shares[0] > 0.2 > 0.02 > shares[1]


def test_a_fresh_model_repeats_what_it_has_read() -> None:
    """Random tokens, then a stretch of them again: the second time they are likely, before anything is trained."""
    first = torch.randint(0, VOCABULARY, (4, 100))
    ids = torch.cat([first, first[:, 20:80]], 1)
    with torch.no_grad():
        logits = fresh_model(induction=True)(ids).logits
    nll = -logits.log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
    assert float(nll[:, 101:].mean()) < 0.5 * float(nll[:, :98].mean())


def test_copying_heads_look_at_tokens_like_the_present_one() -> None:
    first = torch.randperm(VOCABULARY)[:60].reshape(1, 60)
    ids = torch.cat([first, first[:, 20:40]], 1)
    seen = attention(fresh_model(induction=False), ids, 0)[0]
    alike = torch.stack([seen[60 + k, 20 + k] for k in range(20)]).mean()
    others = torch.stack([seen[60 + k, 25 + k] for k in range(20)]).mean()
    assert float(alike) > 2 * float(others)
