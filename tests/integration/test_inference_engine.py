"""One real vLLM engine on the CPU: log-probabilities, weight updates, forced queue, seeds, leaks, failures."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from actors import weight_transfer
from actors.inference import InferenceError, InferenceServer, SamplingSpec
from actors.settings import InferenceSettings, TTISettings
from actors.tti_request import RequestRefused
from controller.valkey_process import free_port
from envs.records import Candidate, SignalRange
from envs.weight_checksum import difference
from learner.weight_sender import weight_checksums
from tests.integration import random_policy
from tests.monitoring_pages import RECORDED, sample_names
from tests.unit import uncertainty_oracle as oracle

pytestmark = pytest.mark.timeout(900)

QUIET = TTISettings(epsilon=0.0, think_cap=56)
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
            dtype=dtype,
            prompt_tokens=128,
            response_tokens=64,
            max_num_seqs=32,
            kv_cache_gib=0.25,
            start_timeout_s=800.0,  # minutes, on a machine that does other things too
            metrics_port=free_port(),
        )
        self.metrics_port = settings.metrics_port
        self.run(self.server.start(path, settings, QUIET, seed=0))

    def run(self, coroutine: Any) -> Any:
        return self.runner.run(coroutine)

    def tti(self, **changes: Any) -> None:
        """Settings of thoughts from the next request on."""
        self.server._tti = QUIET.model_copy(update=changes)

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
    weights = random_policy.weights_of(other, engine.dtype)
    report = engine.run(engine.server.update_weights(live + 1, weights, True))
    assert report.version == live + 1 and report.pause_seconds <= report.seconds
    assert report.checksums == weight_checksums(weights), "as the learner sums up what it sends"
    assert report.bytes == sum(p.numel() * p.element_size() for p in other.parameters())
    after = engine.replies(16)
    assert {(c.min_version, c.max_version) for c in after} == {(live + 1, live + 1)}
    assert any("\ufffd" in c.text for c in after), "bytes that are no UTF-8 must not matter"
    assert engine.mismatch_kl(after, other) < bound
    assert engine.mismatch_kl(after, engine.model) > 1e-2, "the two models must differ for this test to mean anything"
    weights = random_policy.weights_of(engine.model, engine.dtype)
    assert engine.run(engine.server.update_weights(live + 2, weights)).checksums is None, "not asked for"
    again = engine.replies(16)
    assert engine.mismatch_kl(again, engine.model) < bound
    if engine.dtype is torch.float32:
        assert [c.token_ids.tolist() for c in again] == [c.token_ids.tolist() for c in before]


def test_weights_that_change_on_their_way_into_the_engine_show(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """One value of one small tensor is enough."""
    weights = random_policy.weights_of(engine.model, engine.dtype)
    victim = sorted(name for name in weights if "norm" in name)[0]
    write = weight_transfer.write_weights

    def changed(given: dict[str, torch.Tensor]) -> tuple[Path, int]:
        tensor = given[victim].clone()
        tensor[-1] *= 1.01
        return write({**given, victim: tensor})

    monkeypatch.setattr(weight_transfer, "write_weights", changed)
    live = engine.run(engine.server.status())["version"]
    report = engine.run(engine.server.update_weights(live + 1, weights, True))
    assert report.checksums is not None
    assert difference(weight_checksums(weights), report.checksums) == (
        f"of {len(weights)} tensors 1 have other bytes, such as {victim}"
    )
    monkeypatch.undo()
    engine.run(engine.server.update_weights(live + 2, weights))


def test_the_engine_s_own_metrics_are_served(engine: Engine) -> None:
    """Everything that the dashboards ask of an engine is there, and counts what it has answered."""
    engine.replies(4)
    # as Prometheus 2.42 asks: to this the server would answer with other names, were it free to choose the format
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    request = urllib.request.Request(f"http://127.0.0.1:{engine.metrics_port}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:
        page = answer.read().decode()
    served = {re.split(r"[{ ]", line)[0] for line in page.splitlines() if line and not line.startswith("#")}
    assert sample_names(RECORDED / "exporters" / "vllm.prom") <= served
    finished = [float(line.split()[-1]) for line in page.splitlines() if line.startswith("vllm:request_success_total{")]
    assert sum(finished) >= 4


def test_update_with_requests_in_flight(engine: Engine) -> None:
    live = engine.run(engine.server.status())["version"]

    async def scene() -> tuple[Any, list[list[Candidate]]]:
        updated = asyncio.Event()

        async def one_after_another(number: int) -> list[Candidate]:
            """Always a request in flight, however fast the machine is, until one ends after the update."""
            candidates = []
            while not updated.is_set():
                candidates.append(await engine.reply(number, max_tokens=64))
            return candidates

        streams = [asyncio.create_task(one_after_another(number)) for number in range(24)]
        await asyncio.sleep(0.15)
        report = await engine.server.update_weights(live + 1, random_policy.weights_of(engine.model, engine.dtype))
        updated.set()
        return report, await asyncio.wait_for(asyncio.gather(*streams), 60)

    report, streams = engine.run(scene())
    print(report)
    spans = {(c.min_version, c.max_version) for candidates in streams for c in candidates}
    assert (live, live + 1) in spans
    assert spans <= {(live, live), (live, live + 1), (live + 1, live + 1)}
    last = [candidates[-1] for candidates in streams]
    assert engine.mismatch_kl(last, engine.model) < (1e-6 if engine.dtype is torch.float32 else 1e-4)


def test_the_cap_forces_the_queue_exactly_once(engine: Engine) -> None:
    engine.tti(think_cap=6)
    queue = engine.tokenizer.encode("</think>\n<action>", add_special_tokens=False)
    candidates = engine.replies(24)
    capped = [c for c in candidates if c.fired]
    assert len(capped) >= 10, "most taught thoughts are longer than that"
    assert all(c.num_think_tokens <= 6 for c in candidates if c.text.startswith("<think>"))
    for candidate in capped:
        at = candidate.fired_at
        assert candidate.fired == "cap" and candidate.num_think_tokens == 6
        assert candidate.token_ids[at : at + len(queue)].tolist() == queue
        assert candidate.forced.sum() == len(queue) and candidate.forced[at : at + len(queue)].all()
        assert candidate.text.count("</think>\n<action>") == 1
        assert (candidate.logprobs[candidate.forced] == 0).all()
        assert (candidate.logprobs[~candidate.forced] < 0).any()
        assert np.isnan(candidate.uncertainty[candidate.forced]).all()
        assert not np.isnan(candidate.uncertainty[~candidate.forced]).any()
    assert engine.mismatch_kl(candidates, engine.model) < (1e-6 if engine.dtype is torch.float32 else 1e-4)


def test_tti_off_by_settings_or_by_request_forces_nothing(engine: Engine) -> None:
    engine.tti(think_cap=2)
    assert not any(c.forced.any() for c in engine.replies(8, tti=False))
    engine.tti(think_cap=2, enabled=False)
    free = engine.replies(8)
    assert not any(c.forced.any() or c.fired for c in free)
    assert all(0 <= c.phi <= 1 for c in free)


def test_a_reply_ends_with_the_end_token_and_says_so(engine: Engine) -> None:
    engine.tti()
    ended = [c for c in engine.replies(16) if c.finish_reason == "stop"]
    assert ended, "the taught format ends replies"
    for candidate in ended:
        assert candidate.token_ids[-1] == engine.tokenizer.eos_token_id
        assert "<|end|>" not in candidate.text and candidate.text.startswith("<think>")
    cut = engine.replies(4, max_tokens=3)
    assert {(len(c.token_ids), c.finish_reason) for c in cut} == {(3, "length")}


def test_m_and_firing_agree_with_the_oracle_on_the_models_own_logits(engine: Engine) -> None:
    """What the engine measured, recomputed in float64 from the Hugging Face model's logits of the same reply."""
    full_precision_only(engine)
    settings: dict[str, Any] = {"epsilon": 0.1, "window": 2, "min_tokens": 4, "think_cap": 18}
    engine.tti(**settings)
    pieces = engine.tokenizer.convert_ids_to_tokens(list(range(random_policy.VOCABULARY)))
    queue = engine.tokenizer.encode("</think>\n<action>", add_special_tokens=False)
    carried = SignalRange(entropy_min=0.5, entropy_max=4.0, confidence_min=3.0, confidence_max=9.0)
    fired = set()
    for before in (SignalRange(), carried):
        for number, candidate in enumerate(engine.replies(12, before=before)):
            prompt, reply = engine.prompt(number), candidate.token_ids
            ids = torch.tensor(np.concatenate((prompt, reply)), dtype=torch.long)[None]
            with torch.inference_mode():
                logits = engine.model(input_ids=ids).logits[0, len(prompt) - 1 :].double().numpy()
            expected = oracle.reply(
                lambda position, logits=logits: logits[position],
                lambda position, _, reply=reply: int(reply[position]),
                pieces,
                queue,
                max_tokens=MAX_TOKENS,
                eos=engine.tokenizer.eos_token_id,
                before=(before.entropy_min, before.entropy_max, before.confidence_min, before.confidence_max),
                **settings,
            )
            if expected.smallest_margin < 5e-5 or expected.smallest_span < 1e-2:
                continue
            assert expected.tokens == reply.tolist()
            assert (expected.fired, expected.fired_at) == (candidate.fired, candidate.fired_at)
            fired.add(candidate.fired)
            np.testing.assert_allclose(candidate.uncertainty, expected.m, atol=2e-3)
            np.testing.assert_allclose(candidate.phi, expected.phi, rtol=1e-2)
            after = candidate.range_after
            np.testing.assert_allclose(
                [after.entropy_min, after.entropy_max, after.confidence_min, after.confidence_max],
                expected.signal_range,
                atol=1e-4,
            )
    assert "uncertainty" in fired


def test_the_same_seed_gives_the_same_reply_whatever_the_neighbours(engine: Engine) -> None:
    full_precision_only(engine)
    engine.tti(think_cap=10)
    together = engine.replies(30)
    for number in (0, 7, 29):
        alone = engine.run(engine.reply(number))
        assert alone.token_ids.tolist() == together[number].token_ids.tolist()
        assert (alone.fired, alone.fired_at) == (together[number].fired, together[number].fired_at)
        np.testing.assert_allclose(alone.uncertainty, together[number].uncertainty, atol=1e-3)
    other_seed = engine.run(
        engine.server.generate("other", engine.prompt(0), 999, SignalRange(), SamplingSpec(max_tokens=MAX_TOKENS))
    )
    assert other_seed.token_ids.tolist() != together[0].token_ids.tolist()


def test_logprobs_are_raw_whatever_the_sampling(engine: Engine) -> None:
    full_precision_only(engine)
    engine.tti()
    for how in ({"temperature": 0.6, "top_p": 0.95, "top_k": 20}, {"temperature": 0.0}):
        candidates = engine.replies(6, **how)
        assert engine.mismatch_kl(candidates, engine.model) < 1e-6


def test_a_request_that_no_engine_can_answer_is_refused_beside_others_that_are_served(engine: Engine) -> None:
    engine.tti()
    spec = SamplingSpec(max_tokens=8)
    requests = [(f"m{i}", engine.prompt(i), i, SignalRange(), spec) for i in range(3)]
    requests.append(("too long", np.zeros(200, np.int32), 1, SignalRange(), spec))
    requests.append(("empty", np.zeros(0, np.int32), 1, SignalRange(), spec))

    async def scene() -> list[Any]:
        calls = [engine.server.generate(*request) for request in requests]
        calls.append(engine.server.generate("cold", engine.prompt(0), 0, SignalRange(), SamplingSpec(temperature=-1)))
        return await asyncio.gather(*calls, return_exceptions=True)

    replies = engine.run(scene())
    engine.tti(window=1001)
    with pytest.raises(RequestRefused, match="window = 1001"):
        engine.run(engine.reply(0))
    assert [isinstance(reply, Candidate) for reply in replies] == [True, True, True, False, False, False]
    assert all(isinstance(reply, RequestRefused) for reply in replies[3:]), replies[3:]
    assert "too long: 200 prompt tokens" in str(replies[3]) and "temperature" in str(replies[5])


def test_nothing_is_kept_after_two_hundred_requests_some_aborted(engine: Engine) -> None:
    engine.tti()

    async def scene() -> dict[str, int]:
        tasks = [asyncio.create_task(engine.reply(i, max_tokens=16)) for i in range(200)]
        await asyncio.sleep(0.1)
        for task in tasks[::5]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(result, Candidate) for result in results) >= 150
        await engine.reply(0, max_tokens=2)
        await asyncio.sleep(0.2)
        assert engine.server._engine is not None
        return (await engine.server._engine.collective_rpc("t2po_kept"))[0]

    kept = engine.run(scene())
    assert kept["requests"] == 0 and kept["rows"] == 0
    assert engine.run(engine.server.status())["in_flight"] == 0


def test_an_update_refused_beforehand_leaves_the_server_ready(engine: Engine) -> None:
    live = engine.run(engine.server.status())["version"]
    with pytest.raises(InferenceError, match=f"version {live} must be above"):
        engine.run(engine.server.update_weights(live, random_policy.weights_of(engine.model, engine.dtype)))
    with pytest.raises(Exception, match="no weights were given"):
        engine.run(engine.server.update_weights(live + 1, {}))
    assert engine.run(engine.server.status())["state"] == "ready"
    assert len(engine.replies(2)) == 2


def test_an_update_that_breaks_half_way_makes_the_server_unusable_and_says_so(engine: Engine) -> None:
    """The last test of this engine: it fails for good."""
    full_precision_only(engine)
    live = engine.run(engine.server.status())["version"]
    weights = random_policy.weights_of(engine.model, engine.dtype)
    missing = "model.layers.1.mlp.down_proj.weight"
    del weights[missing]
    children = [psutil.Process(process.pid) for process in engine.server._children]

    async def scene() -> list[Any]:
        in_flight = [asyncio.create_task(engine.reply(i, max_tokens=64)) for i in range(4)]
        await asyncio.sleep(0.1)
        update = engine.server.update_weights(live + 1, weights)
        return await asyncio.gather(update, *in_flight, return_exceptions=True)

    update, *replies = engine.run(scene())
    assert isinstance(update, InferenceError) and "broke half-way" in str(update) and missing in str(update)
    failed = [reply for reply in replies if not isinstance(reply, Candidate)]
    assert all(isinstance(reply, InferenceError) and "failed" in str(reply) for reply in failed)
    status = engine.run(engine.server.status())
    assert status["state"] == "failed" and "broke half-way" in status["reason"] and status["version"] == live
    with pytest.raises(InferenceError, match="start another server"):
        engine.run(engine.reply(0))
    assert not [process for process in children if process.is_running()]
    assert not list(Path("/dev/shm").glob(f"t2po-weights-{psutil.Process().pid}-*"))


def test_an_engine_that_is_killed_fails_its_requests_and_says_so(engine: Engine) -> None:
    """The last test of this engine: it is gone."""
    if engine.dtype is torch.float32:
        pytest.skip("the other engine")

    async def until_it_fails(number: int) -> str:
        """One request after another, so that one is in flight when the kill comes, however fast the machine is."""
        while True:
            try:
                await engine.reply(number, max_tokens=64)
            except InferenceError as error:
                return str(error)

    async def scene() -> list[str]:
        streams = [asyncio.create_task(until_it_fails(number)) for number in range(4)]
        await asyncio.sleep(0.1)
        for process in engine.server._children:
            process.kill()
        return await asyncio.wait_for(asyncio.gather(*streams), 30)

    assert all("the engine died" in failure for failure in engine.run(scene()))
    status = engine.run(engine.server.status())
    assert status["state"] == "failed" and "the engine died" in status["reason"]
