"""Packing: nothing lost, nothing twice, and the gradient does not depend on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Qwen3ForCausalLM

from learner.packing import pack, pack_for_rank
from learner.scoring import TokenScorer, load_policy
from tests.tiny_model import random_pairs, tiny_config, write_tiny_model


def scorer(dtype: torch.dtype = torch.float32) -> TokenScorer:
    torch.manual_seed(0)
    config = tiny_config()
    config.initializer_range = 0.2
    return TokenScorer(Qwen3ForCausalLM(config).to(dtype).eval())


@pytest.mark.parametrize("budget", [1, 64, 300, 100_000])
@pytest.mark.parametrize("score_prompt", [False, True])
def test_every_sequence_is_in_exactly_one_batch(budget: int, score_prompt: bool) -> None:
    pairs = random_pairs(50)
    batches = pack(pairs, budget, score_prompt=score_prompt)
    assert sorted(member for batch in batches for member in batch.members) == list(range(50))
    for batch in batches:
        assert batch.input_ids.numel() <= budget or len(batch.members) == 1
        scored = [np.concatenate(pairs[m])[1:] if score_prompt else pairs[m][1] for m in batch.members]
        np.testing.assert_array_equal(batch.targets, np.concatenate(scored))
    assert sum(batch.num_sequence_tokens for batch in batches) == sum(len(p) + len(r) for p, r in pairs)


def test_padding_is_small_when_lengths_are_alike() -> None:
    batches = pack(random_pairs(500, prompt=(60, 220), reply=(15, 40)), 4096)
    cells = sum(batch.input_ids.numel() for batch in batches)
    assert 1 - sum(batch.num_tokens for batch in batches) / cells < 0.06


def test_scores_equal_those_of_each_sequence_alone() -> None:
    model, pairs = scorer(), random_pairs(20)
    for batch in pack(pairs, 400):
        with torch.no_grad():
            scores, entropies = model(batch.input_ids, batch.positions, batch.targets, "metric")
        offset = 0
        for member in batch.members:
            prompt, reply = pairs[member]
            ids = torch.from_numpy(np.concatenate([prompt, reply]).astype(np.int64))[None]
            with torch.no_grad():
                log_probs = torch.log_softmax(model.policy(ids, use_cache=False).logits.float()[0], dim=-1)
            rows = log_probs[len(prompt) - 1 : -1]
            expected = rows.gather(1, torch.from_numpy(reply.astype(np.int64))[:, None]).squeeze(1)
            torch.testing.assert_close(scores[offset : offset + len(reply)], expected, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(
                entropies[offset : offset + len(reply)], -(rows.exp() * rows).sum(-1), rtol=1e-4, atol=1e-5
            )
            offset += len(reply)


def test_gradient_does_not_depend_on_packing() -> None:
    pairs = random_pairs(30)
    weights = [
        np.random.default_rng(i).normal(size=len(reply)).astype(np.float32) for i, (_, reply) in enumerate(pairs)
    ]
    gradients = []
    for budget in (1, 200, 1000, 100_000):
        model = scorer()
        for batch in pack(pairs, budget):
            scores, _ = model(batch.input_ids, batch.positions, batch.targets)
            ((scores * batch.in_order(weights)).sum() / 100.0).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    scale = gradients[0].abs().max()
    for other in gradients[1:]:
        assert float((other - gradients[0]).abs().max() / scale) < 1e-5


def test_padding_has_no_gradient() -> None:
    model, pairs = scorer(), [(p + 1, r) for p, r in random_pairs(5)]
    pairs = [(np.maximum(p % 299, 1).astype(np.int32), r) for p, r in pairs]
    model.policy.get_output_embeddings().weight = torch.nn.Parameter(model.policy.lm_head.weight.detach().clone())
    (batch,) = pack(pairs, 100_000)
    scores, _ = model(batch.input_ids, batch.positions, batch.targets)
    scores.sum().backward()
    assert batch.padding_share > 0.1
    assert torch.all(model.policy.get_input_embeddings().weight.grad[0] == 0.0)


def test_empty_reply_is_an_error_that_names_the_sequence() -> None:
    empty = np.zeros(0, dtype=np.int32)
    with pytest.raises(ValueError, match="sequence 1 has 3 prompt and 0 reply"):
        pack([(np.ones(3, np.int32), np.ones(1, np.int32)), (np.ones(3, np.int32), empty)], 100)


def test_model_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-model"):
        load_policy(tmp_path / "no-such-model", torch.float32)


def test_loaded_policy_scores_in_its_own_dtype(tmp_path: Path) -> None:
    policy = load_policy(write_tiny_model(tmp_path / "model"), torch.bfloat16)
    assert next(policy.parameters()).dtype == torch.bfloat16


@pytest.mark.parametrize("equal_count", [False, True])
@pytest.mark.parametrize(("count", "num_ranks"), [(1, 3), (2, 2), (5, 3), (50, 2), (50, 7)])
def test_ranks_have_each_sequence_once_and_about_as_many_tokens(count: int, num_ranks: int, equal_count: bool) -> None:
    pairs = random_pairs(count)
    shares = [pack_for_rank(pairs, 200, rank, num_ranks, equal_count=equal_count) for rank in range(num_ranks)]
    members = [[member for batch in batches for member in batch.members] for batches in shares]
    assert sorted(member for own in members for member in own) == list(range(count))
    assert all(shares), "a rank without a sequence has an empty batch"
    if equal_count:
        assert len(set(map(len, shares))) == 1
    loads = [sum(len(pairs[m][0]) + len(pairs[m][1]) - 1 for m in own) for own in members]
    assert max(loads) - min(loads) <= max(len(prompt) + len(reply) for prompt, reply in pairs)


def test_one_rank_packs_as_if_there_were_no_ranks() -> None:
    pairs = random_pairs(30)
    for ours, plain in zip(pack_for_rank(pairs, 300, 0, 1), pack(pairs, 300), strict=True):
        assert ours.members == plain.members
        assert torch.equal(ours.input_ids, plain.input_ids)


def test_empty_batch_has_no_scored_token_and_a_gradient_of_zero() -> None:
    (empty,) = pack_for_rank(random_pairs(1), 64, 1, 2)
    assert empty.members == ()
    assert len(empty.in_order([np.ones(4, dtype=np.float32)])) == empty.num_tokens == empty.num_sequence_tokens == 0
    model = scorer()
    log_probs, _ = model(empty.input_ids, empty.positions, empty.targets)
    log_probs.sum().backward()
    assert all(bool((parameter.grad == 0).all()) for parameter in model.parameters())
