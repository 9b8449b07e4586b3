"""What an engine is started with: settings in vLLM's words."""

from __future__ import annotations

import pytest

from actors.engine import engine_arguments
from actors.settings import InferenceSettings


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("on_cpu", [True, False])
def test_prefix_caching_is_switched_by_its_knob(wanted: bool, on_cpu: bool) -> None:
    settings = InferenceSettings(prefix_caching=wanted, max_num_seqs=1)
    arguments = engine_arguments("policy", settings, 7, on_cpu=on_cpu)
    assert arguments["enable_prefix_caching"] is wanted and arguments["max_num_seqs"] == 1
    assert arguments["seed"] == 7


def test_prompts_are_never_cut_on_a_cpu() -> None:
    """vLLM's CPU engine dies of it."""
    settings = InferenceSettings(prompt_tokens=6000, response_tokens=100)
    arguments = engine_arguments("policy", settings, 0, on_cpu=True)
    assert arguments["enable_chunked_prefill"] is False
    assert arguments["max_num_batched_tokens"] >= arguments["max_model_len"] == 6100
    assert "enable_chunked_prefill" not in engine_arguments("policy", settings, 0, on_cpu=False)
