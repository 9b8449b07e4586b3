"""The fast layers compute what transformers' layers compute, forward and backward."""

from __future__ import annotations

import sys

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen3ForCausalLM

from learner import cpu_layers
from learner.cpu_layers import use_cpu_layers
from tests.tiny_model import tiny_config


def models() -> list[PreTrainedModel]:
    torch.manual_seed(0)
    config = tiny_config()
    config.initializer_range = 0.2
    llama = LlamaConfig(
        hidden_size=96, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=3, intermediate_size=128,
        vocab_size=300, initializer_range=0.2,
    )  # fmt: skip
    return [Qwen3ForCausalLM(config).eval(), LlamaForCausalLM(llama).eval()]


def gradients(policy: PreTrainedModel) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    policy.zero_grad()
    ids = torch.randint(1, 300, (3, 40), generator=torch.Generator().manual_seed(1))
    output = policy(ids, labels=ids)
    output.loss.backward()
    return output.logits.detach(), {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("index", "norms"), [(0, 9), (1, 5)])
def test_same_logits_and_gradients(monkeypatch: pytest.MonkeyPatch, index: int, norms: int) -> None:
    policy = models()[index]
    modeling = sys.modules[type(policy).__module__]
    original = modeling.apply_rotary_pos_emb
    if hasattr(original, "is_cpu_layer"):
        original = original.__closure__[0].cell_contents
    monkeypatch.setattr(modeling, "apply_rotary_pos_emb", original)
    logits, expected = gradients(policy)
    assert use_cpu_layers(policy) == (norms, True)
    assert modeling.apply_rotary_pos_emb is not original
    fast_logits, ours = gradients(policy)
    torch.testing.assert_close(fast_logits, logits, rtol=1e-5, atol=1e-5)
    assert expected.keys() == ours.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-6)


def test_gradients_numerically() -> None:
    x = torch.randn(2, 3, 4, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(8, dtype=torch.float64, requires_grad=True)
    angle = torch.randn(1, 1, 4, 8, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a, w: cpu_layers._Norm.apply(a, w, 1e-6), (x, weight))
    assert torch.autograd.gradcheck(lambda a: cpu_layers._Rotation.apply(a, angle.cos(), angle.sin()), (x,))


def test_a_norm_that_computes_something_else_is_left_alone() -> None:
    class OffsetRMSNorm(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.full((8,), 0.3))
            self.variance_epsilon = 1e-6

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (1.0 + self.weight) * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)

    norm = OffsetRMSNorm()
    assert not cpu_layers._replace_norm(norm)
    assert "forward" not in vars(norm)
