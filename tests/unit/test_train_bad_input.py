"""Runs that cannot begin: each says which value, why and what to do, before anything is started."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from controller.cli import main


def train(tmp_path: Path, *changes: str) -> int:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'runs_dir = "{tmp_path / "runs"}"\nsteps = 1\n[metrics]\nport = 0\n', encoding="utf-8")
    return main(["train", str(recipe), "name=run", *changes])


def policy_folder(path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A folder that looks like a model; only its tokenizer is ever read here."""
    tokenizer.save_pretrained(path)
    (path / "config.json").write_text("{}", encoding="utf-8")
    (path / "model.safetensors").write_bytes(b"")
    return path


def word_tokenizer(*words: str) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.WordLevel({word: index for index, word in enumerate(("[UNK]", "<eos>", *words))}, "[UNK]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", unk_token="[UNK]")
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    return tokenizer


def test_train_model_path_that_does_not_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path, f"model={tmp_path / 'nowhere'}") == 2
    assert f"{tmp_path / 'nowhere'}" in (error := capsys.readouterr().err)
    assert "no such folder" in error


def test_train_tokenizer_without_the_markers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = policy_folder(tmp_path / "model", word_tokenizer("go", "to"))
    assert train(tmp_path, f"model={folder}") == 2
    assert "cannot spell '<think>'" in capsys.readouterr().err


def test_train_metrics_port_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = policy_folder(tmp_path / "model", word_tokenizer("<think>", "</think>", "<action>", "</action>"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert train(tmp_path, f"model={folder}", f"metrics.port={port}") == 2
    assert f"metrics.port = {port}" in capsys.readouterr().err


def test_train_runs_dir_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert train(tmp_path, f"runs_dir={tmp_path / 'file' / 'runs'}") == 2
    assert "runs_dir" in capsys.readouterr().err


def test_train_read_only_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path, "runs_dir=/proc/t2po-runs") == 2
    assert "/proc/t2po-runs" in capsys.readouterr().err


def test_train_name_of_a_run_that_is_there_already(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path, f"model={tmp_path / 'nowhere'}")
    assert train(tmp_path, f"model={tmp_path / 'nowhere'}") == 2
    assert "--resume" in capsys.readouterr().err


def test_train_unknown_panel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = policy_folder(tmp_path / "model", word_tokenizer("<think>", "</think>", "<action>", "</action>"))
    assert train(tmp_path, f"model={folder}", "env.eval_panel=nothing") == 2
    assert "nothing" in capsys.readouterr().err


def test_resume_of_a_folder_that_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--resume", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_train_with_a_retrieval_server_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert train(tmp_path, "env.name=search", "env.search.retriever=http", f"env.search.url={url}") == 2
    error = capsys.readouterr().err
    assert f"env.search.url = '{url}'" in error and "t2po serve search" in error
    assert not (tmp_path / "runs").exists()


def test_train_with_a_corpus_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path, "env.name=search", "env.search.corpus=wiki-18") == 2
    assert "env.search.corpus = 'wiki-18'" in (error := capsys.readouterr().err)
    assert "t2po data get search" in error
