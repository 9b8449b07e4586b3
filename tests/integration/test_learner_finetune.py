"""Supervised fine-tuning on a real DeepSpeed engine."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from learner.finetune import FinetuneError, FinetuneProgress, finetune, learning_rate_share, shuffled_batches
from learner.settings import ColdstartSettings
from tests.tiny_model import random_pairs, write_tiny_model


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def settings(**values: object) -> ColdstartSettings:
    return ColdstartSettings.model_validate(
        {"epochs": 8, "lr": 3e-3, "batch_tokens": 512, "max_duration_s": 120.0, "num_threads": 1, **values}
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_learns_and_writes_a_folder_that_loads(model_path: Path, tmp_path: Path, dtype: str) -> None:
    seen: list[FinetuneProgress] = []
    pairs = random_pairs(30)
    metrics = finetune(model_path, tmp_path / "out", pairs, settings(), 0, dtype=dtype, on_progress=seen.append)
    assert metrics["loss"] < 0.7 * seen[0].loss
    assert len(seen) == metrics["steps"] == metrics["planned_steps"]
    assert metrics["tokens"] == 8 * sum(len(p) + len(r) for p, r in pairs)
    assert metrics["stopped_by_deadline"] == 0.0
    AutoTokenizer.from_pretrained(tmp_path / "out")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.vocab_size == 300
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_same_seed_same_weights(model_path: Path, tmp_path: Path) -> None:
    pairs, short = random_pairs(20), settings(epochs=2)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        finetune(model_path, tmp_path / name, pairs, short, seed)
    a, b, c = (AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], c[name]) for name in a)


def test_prompt_loss_teaches_the_prompt(model_path: Path, tmp_path: Path) -> None:
    prompt = np.arange(10, 40, dtype=np.int32)
    pairs = [(prompt, np.array([50 + i], dtype=np.int32)) for i in range(20)]
    likelihood = []
    for name, weight in (("without", 0.0), ("with", 1.0)):
        finetune(model_path, tmp_path / name, pairs, settings(epochs=4), 0, prompt_loss_weight=weight)
        policy = AutoModelForCausalLM.from_pretrained(tmp_path / name)
        ids = torch.from_numpy(prompt.astype(np.int64))[None]
        with torch.no_grad():
            likelihood.append(-float(policy(ids, labels=ids).loss))
    assert likelihood[1] > likelihood[0] + 1.0


def test_deadline_stops_and_brings_the_learning_rate_down(model_path: Path, tmp_path: Path) -> None:
    seen: list[FinetuneProgress] = []
    start = time.monotonic()
    metrics = finetune(
        model_path, tmp_path / "out", random_pairs(200), settings(epochs=1000, max_duration_s=15.0), 0,
        on_progress=seen.append,
    )  # fmt: skip
    assert time.monotonic() - start < 25.0
    assert metrics["stopped_by_deadline"] == 1.0
    assert seen[-1].lr < 0.2 * max(progress.lr for progress in seen)
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_diverging_run_stops_and_writes_nothing(model_path: Path, tmp_path: Path) -> None:
    broken = AutoModelForCausalLM.from_pretrained(model_path)
    with torch.no_grad():
        broken.get_input_embeddings().weight[5] = float("nan")
    broken.save_pretrained(tmp_path / "broken")
    AutoTokenizer.from_pretrained(model_path).save_pretrained(tmp_path / "broken")
    pairs = [(np.full(4, 5, np.int32), np.ones(3, np.int32))] * 20
    with pytest.raises(FinetuneError, match=r"5 updates in a row .* lower coldstart\.lr"):
        finetune(tmp_path / "broken", tmp_path / "out", pairs, settings(batch_tokens=64), 0)
    assert not (tmp_path / "out").exists()


def test_bad_input_is_named(model_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no demonstrations"):
        finetune(model_path, tmp_path / "out", [], settings(), 0)
    with pytest.raises(ValueError, match="demonstration 1 has token id 300, the model's vocabulary ends at 299"):
        bad = [*random_pairs(1), (np.array([300], np.int32), np.ones(1, np.int32))]
        finetune(model_path, tmp_path / "out", bad, settings(), 0)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        finetune(tmp_path / "nowhere", tmp_path / "out", random_pairs(1), settings(), 0)


def test_schedule_warms_up_and_comes_down() -> None:
    shares = [learning_rate_share(x / 1000) for x in range(1001)]
    assert shares[0] == 0.0
    assert max(shares) == pytest.approx(1.0, abs=1e-3)
    assert shares[-1] == pytest.approx(0.05)
    assert all(later <= earlier for earlier, later in itertools.pairwise(shares[50:]))


def test_batches_hold_every_sequence_once_within_the_budget() -> None:
    lengths = np.random.default_rng(0).integers(10, 300, size=100)
    batches = list(shuffled_batches(lengths, 1000, np.random.default_rng(1)))
    assert sorted(index for batch in batches for index in batch) == list(range(100))
    assert all(lengths[batch].sum() <= 1000 for batch in batches)
