"""The server inside a Ray actor: replies, weights by object reference, death of its processes; and failed starts."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import psutil
import pytest
import ray
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from actors.inference import InferenceError, InferenceServer, SamplingSpec
from actors.inference_actor import InferenceActor
from actors.settings import InferenceSettings, TTISettings
from envs.records import Candidate, SignalRange
from tests.integration import random_policy

pytestmark = pytest.mark.timeout(300)

SETTINGS = InferenceSettings(
    dtype="float32", prompt_tokens=64, response_tokens=32, max_num_seqs=16, kv_cache_gib=0.25, start_timeout_s=240
)
TTI = TTISettings(think_cap=16)


def test_a_server_in_a_ray_actor(tmp_path: Path) -> None:
    tokenizer = random_policy.build_tokenizer()
    model = random_policy.build_model(tokenizer, seed=0)
    path = random_policy.save(model, tokenizer, tmp_path / "policy")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100_000_000)
    try:
        actor = InferenceActor.remote()
        assert ray.get(actor.status.remote(), timeout=200)["state"] == "new"
        ray.get(actor.start.remote(path, SETTINGS, TTI, 0), timeout=240)
        status = ray.get(actor.status.remote(), timeout=30)
        assert status["state"] == "ready" and status["version"] == 0
        spec = SamplingSpec(max_tokens=8)
        calls = [actor.generate.remote(f"r{i}", [i + 1, 2, 3], i, SignalRange(), spec) for i in range(40)]
        candidates = ray.get(calls, timeout=60)
        assert all(isinstance(c, Candidate) and len(c.token_ids) > 0 for c in candidates)
        other = random_policy.build_model(tokenizer, seed=1)
        weights = ray.put(random_policy.weights_of(other, torch.float32))
        report = ray.get(actor.update_weights.remote(1, weights), timeout=60)
        assert report.version == 1 and report.bytes > 0
        again = ray.get(actor.generate.remote("r0", [1, 2, 3], 0, SignalRange(), spec), timeout=60)
        assert (again.min_version, again.max_version) == (1, 1)
        processes = [psutil.Process(status["pid"]), *psutil.Process(status["pid"]).children(recursive=True)]
        ray.get(actor.stop.remote(), timeout=60)
        assert ray.get(actor.status.remote(), timeout=30)["state"] == "stopped"
        with pytest.raises(Exception, match="inference server is stopped"):
            ray.get(actor.generate.remote("late", [1], 0, SignalRange(), spec), timeout=30)
        engine = [p for p in processes[1:] if p.is_running() and "EngineCore" in " ".join(p.cmdline())]
        assert engine == []
        ray.kill(actor)
        deadline = time.monotonic() + 30
        while any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes):
            assert time.monotonic() < deadline, "a process outlived its killed actor"
            time.sleep(0.2)
    finally:
        ray.shutdown()


def test_a_model_folder_that_does_not_exist() -> None:
    server = InferenceServer()
    with pytest.raises(InferenceError, match="nowhere.*does not exist"):
        asyncio.run(server.start("/nowhere", SETTINGS, TTI, 0))
    with pytest.raises(InferenceError, match="call start first"):
        asyncio.run(_generate_without_start())


def words_only() -> PreTrainedTokenizerFast:
    core = Tokenizer(models.WordLevel({"<unk>": 0, "go": 1, "<end>": 2}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>", unk_token="<unk>", pad_token="<end>")


async def _generate_without_start() -> None:
    server = InferenceServer()
    await server.generate("r", [1], 0, SignalRange(), SamplingSpec())


def test_an_engine_that_does_not_start_says_why_and_leaves_no_process(tmp_path: Path) -> None:
    tokenizer = random_policy.build_tokenizer()
    path = random_policy.save(random_policy.build_model(tokenizer, seed=0), tokenizer, tmp_path)
    too_long = SETTINGS.model_copy(update={"prompt_tokens": 5000})  # the model has 1,024 positions
    broken = tmp_path / "broken"
    random_policy.save(random_policy.build_model(tokenizer, seed=0), tokenizer, broken)
    (broken / "model.safetensors").write_bytes(b"no weights")
    no_markers = tmp_path / "no markers"
    random_policy.save(random_policy.build_model(tokenizer, seed=0), words_only(), no_markers)
    before = set(psutil.Process().children(recursive=True))

    async def scene() -> None:
        with pytest.raises(InferenceError, match="1024 positions, fewer than .* = 5032"):
            await InferenceServer().start(path, too_long, TTI, 0)
        with pytest.raises(InferenceError, match="the tokenizer writes it as"):
            await InferenceServer().start(str(no_markers), SETTINGS, TTI, 0)
        with pytest.raises(InferenceError, match="tti.think_cap = 30.*set inference.response_tokens to 33"):
            await InferenceServer().start(path, SETTINGS, TTISettings(think_cap=30), 0)
        server = InferenceServer()
        with pytest.raises(InferenceError, match="did not start"):
            await server.start(str(broken), SETTINGS, TTI, 0)
        status = await server.status()
        assert status["state"] == "failed" and str(broken) in status["reason"]
        with pytest.raises(InferenceError, match="inference server is failed"):
            await server.generate("r", [1], 0, SignalRange(), SamplingSpec())
        await server.stop()

    asyncio.run(scene())
    left = [p for p in psutil.Process().children(recursive=True) if p not in before]
    assert [p for p in left if "resource_tracker" not in " ".join(p.cmdline())] == []
