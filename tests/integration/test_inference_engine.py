"""One real vLLM engine on the CPU: log-probabilities, weight updates, forced queue, seeds, leaks, failures."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from actors.inference import InferenceError, InferenceServer, SamplingSpec
from actors.settings import InferenceSettings, TTISettings
from envs.records import Candidate, SignalRange
from tests.integration import random_policy
from tests.unit import uncertainty_oracle as oracle

pytestmark = pytest.mark.timeout(300)

QUIET = TTISettings(epsilon=0.0, think_cap=60)
MAX_TOKENS = 48


class Engine:
    """A running server, the policy that it started with, and the event loop that it lives in."""

    def __init__(self, folder: Path, dtype: str) -> None:
        self.runner = asyncio.Runner()
        self.tokenizer: PreTrainedTokenizerFast = random_policy.build_tokenizer()
        self.dtype = getattr(torch, dtype)
        self.model: Qwen3ForCausalLM = random_policy.build_model(self.tokenizer, seed=0)
        random_policy.teach_format(self.model, self.tokenizer)
        self.model.to(self.dtype)
        path = random_policy.save(self.model, self.tokenizer, folder)
        self.server = InferenceServer()
        settings = InferenceSettings(
            dtype=dtype, prompt_tokens=128, response_tokens=64, max_num_seqs=32, kv_cache_gib=0.25
        )
        self.run(self.server.start(path, settings, QUIET, seed=0))

    def run(self, coroutine: Any) -> Any:
        return self.runner.run(coroutine)

    def tti(self, **changes: Any) -> None:
        self.run(self.server.set_tti(QUIET.model_copy(update=changes)))

    def prompt(self, number: int) -> np.ndarray:
        return np.random.default_rng(number).integers(440, random_policy.VOCABULARY, size=20 + number % 40)

    async def reply(
        self, number: int, max_tokens: int = MAX_TOKENS, before: SignalRange | None = None, **how: Any
    ) -> Candidate:
        spec = SamplingSpec(max_tokens=max_tokens, **how)
        return await self.server.generate(f"r{number}", self.prompt(number), number, before or SignalRange(), spec)

    def replies(self, count: int, first: int = 0, **how: Any) -> list[Candidate]:
        async def all_of_them() -> list[Candidate]:
            return await asyncio.gather(*(self.reply(i, **how) for i in range(first, first + count)))

        return self.run(all_of_them())

    def mismatch_kl(self, candidates: list[Candidate], model: Qwen3ForCausalLM) -> float:
        """KL(engine || Hugging Face) estimated on the sampled tokens (non-negative per token)."""
        terms = []
        for number, candidate in enumerate(candidates):
            theirs = random_policy.reply_logprobs(model, self.prompt(number), candidate.token_ids)
            difference = (theirs - candidate.logprobs)[~candidate.forced].astype(np.float64)
            terms.append(np.exp(difference) - 1 - difference)
        return float(np.concatenate(terms).mean())


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    made = Engine(tmp_path_factory.mktemp("policy"), request.param)
    yield made
    made.run(made.server.stop())
    made.runner.close()


def full_precision_only(engine: Engine) -> None:
    if engine.dtype is not torch.float32:
        pytest.skip("needs float32")


def test_logprobs_are_those_of_the_model_before_and_after_updates(engine: Engine) -> None:
    bound = 1e-6 if engine.dtype is torch.float32 else 1e-4
    engine.tti()
    before = engine.replies(16)
    assert engine.mismatch_kl(before, engine.model) < bound
    live = engine.run(engine.server.status())["version"]
    other = random_policy.build_model(engine.tokenizer, seed=5).to(engine.dtype)
    report = engine.run(engine.server.update_weights(live + 1, random_policy.weights_of(other, engine.dtype)))
    assert report.version == live + 1 and report.pause_seconds <= report.seconds
    assert report.bytes == sum(p.numel() * p.element_size() for p in other.parameters())
    after = engine.replies(16)
    assert {(c.min_version, c.max_version) for c in after} == {(live + 1, live + 1)}
    assert engine.mismatch_kl(after, other) < bound
    assert engine.mismatch_kl(after, engine.model) > 1e-2, "the two models must differ for this test to mean anything"
    engine.run(engine.server.update_weights(live + 2, random_policy.weights_of(engine.model, engine.dtype)))
    again = engine.replies(16)
    assert engine.mismatch_kl(again, engine.model) < bound
    if engine.dtype is torch.float32:
        assert [c.token_ids.tolist() for c in again] == [c.token_ids.tolist() for c in before]


def test_update_with_requests_in_flight(engine: Engine) -> None:
    live = engine.run(engine.server.status())["version"]

    async def scene() -> tuple[Any, list[Candidate]]:
        tasks = [asyncio.create_task(engine.reply(i, max_tokens=64)) for i in range(24)]
        await asyncio.sleep(0.15)
        report = await engine.server.update_weights(live + 1, random_policy.weights_of(engine.model, engine.dtype))
        return report, await asyncio.gather(*tasks)

    report, candidates = engine.run(scene())
    print(report)
    spans = {(c.min_version, c.max_version) for c in candidates}
    assert (live, live + 1) in spans
    assert spans <= {(live, live), (live, live + 1)}
    assert engine.mismatch_kl(candidates, engine.model) < (1e-6 if engine.dtype is torch.float32 else 1e-4)
