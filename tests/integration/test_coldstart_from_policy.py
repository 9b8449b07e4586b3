"""Rejection fine-tuning with the real engine: the policy plays, is interrupted, goes on, and learns its successes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from controller import attempt_collection
from controller.attempt_collection import read_attempts
from controller.attempts import Attempt
from controller.coldstart import PAGE
from controller.coldstart_command import write_policy
from controller.config import validate
from tests.integration import random_policy

pytestmark = pytest.mark.timeout(600)


class Killed(Exception):
    pass


def test_a_policy_learns_from_its_own_successes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = random_policy.build_tokenizer()
    model = random_policy.build_model(tokenizer, seed=0)
    random_policy.teach_format(model, tokenizer)
    start = random_policy.save(model, tokenizer, tmp_path / "start")
    config = validate(
        {
            "model": start,
            "runs_dir": str(tmp_path),
            "env": {"name": "tests.integration.easy_environment:Easy", "train_panel": "train", "eval_panel": "test"},
            "coldstart": {
                "source": "policy", "num_trajectories": 12, "samples_per_task": 3, "epochs": 2, "lr": 1e-3,
                "evaluate": False,
            },
            "inference": {
                "prompt_tokens": 64, "response_tokens": 64, "max_num_seqs": 4, "kv_cache_gib": 0.25,
                "start_timeout_s": 400.0,
            },
            "tti": {"think_cap": 12, "window": 3, "min_tokens": 3},
            "rollout": {"num_env_actors": 1},
        },
        "test",
    )  # fmt: skip
    played: list[Attempt] = []
    as_json = attempt_collection.as_json

    def killed_after_four(attempt: Attempt) -> dict[str, Any]:
        if len(played) == 4:
            raise Killed
        played.append(attempt)
        return as_json(attempt)

    monkeypatch.setattr(attempt_collection, "as_json", killed_after_four)
    with pytest.raises(Killed):
        write_policy(config, tmp_path / "new", print)
    monkeypatch.undo()
    (file,) = (tmp_path / ".policies").glob("*.unfinished/attempts.jsonl")
    known = read_attempts(file)
    assert sorted(known) == sorted(attempt.number for attempt in played)
    assert not (tmp_path / "new").exists()

    said: list[str] = []
    write_policy(config, tmp_path / "new", said.append)
    assert any("4 of 12 trajectories were played before" in line for line in said)
    page = json.loads((tmp_path / "new" / PAGE).read_text())
    chosen = page["selection"]
    assert (chosen["played"], chosen["tasks_played"]) == (12, 4)
    assert chosen["rejected"]["score too low"] == 6, "the odd tasks cannot be won"
    assert 1 <= chosen["kept"] <= 4 and chosen["tasks_kept"] <= 2
    assert chosen["kept"] + sum(chosen["rejected"].values()) == 12
    assert page["training"]["tokens"] > 0
    before = AutoModelForCausalLM.from_pretrained(start).state_dict()
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "new").state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert not list(tmp_path.glob("**/*.unfinished"))
