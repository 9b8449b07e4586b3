"""Fine-tuning in processes: several ranks train what one rank trains, and a death is told and leaves nothing."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM

from learner.finetune import FinetuneError, FinetuneProgress
from learner.finetune_ranks import finetune_in_processes
from learner.settings import ColdstartSettings
from tests.tiny_model import random_pairs, write_tiny_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def settings(**values: object) -> ColdstartSettings:
    return ColdstartSettings.model_validate(
        {"epochs": 1, "lr": 1e-3, "batch_tokens": 256, "max_duration_s": 300.0, "num_ranks": 2, **values}
    )


def test_two_ranks_train_what_one_trains(model_path: Path, tmp_path: Path) -> None:
    pairs = [*random_pairs(24), *random_pairs(1, seed=1, prompt=(250, 251))]  # the last is a batch of its own
    losses = []
    for num_ranks in (1, 2):
        seen: list[FinetuneProgress] = []
        out = tmp_path / str(num_ranks)
        metrics = finetune_in_processes(
            model_path, out, pairs, settings(num_ranks=num_ranks), 0, prompt_loss_weight=0.2, on_progress=seen.append
        )
        assert metrics["tokens"] == sum(len(prompt) + len(reply) for prompt, reply in pairs)
        losses.append([progress.loss for progress in seen])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    one, two = (AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in "12")
    start = AutoModelForCausalLM.from_pretrained(model_path).state_dict()
    for name, weights in one.items():
        apart, moved = (weights - two[name]).abs().mean(), (weights - start[name]).abs().mean()
        assert float(apart) < 0.02 * float(moved), name


def test_a_rank_that_dies_ends_the_others_and_is_named(model_path: Path, tmp_path: Path) -> None:
    def kill_rank_1(progress: FinetuneProgress) -> None:
        if progress.step == 2:
            next(child for child in multiprocessing.active_children() if child.name == "finetune rank 1").kill()

    with pytest.raises(FinetuneError, match="rank 1 of 2 ended with exit code -9"):
        finetune_in_processes(
            model_path, tmp_path / "out", random_pairs(400), settings(epochs=100), 0, on_progress=kill_rank_1
        )
    assert not [child for child in multiprocessing.active_children() if child.name.startswith("finetune rank")]
    assert list(tmp_path.iterdir()) == []


def test_a_rank_s_error_reaches_the_caller(model_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no demonstrations"):
        finetune_in_processes(model_path, tmp_path / "out", [], settings(), 0)


CALLER = """
import sys
from pathlib import Path
from learner.finetune_ranks import finetune_in_processes
from learner.settings import ColdstartSettings
from tests.tiny_model import random_pairs
if __name__ == "__main__":
    settings = ColdstartSettings(epochs=10000, batch_tokens=256, num_ranks=2)
    finetune_in_processes(sys.argv[1], Path(sys.argv[2]), random_pairs(400), settings, 0,
                          on_progress=lambda progress: print(progress.step, flush=True))
"""


def test_ranks_end_when_the_caller_is_killed(model_path: Path, tmp_path: Path) -> None:
    script = tmp_path / "caller.py"
    script.write_text(CALLER)
    caller = subprocess.Popen(
        [sys.executable, str(script), str(model_path), str(tmp_path / "out")],
        stdout=subprocess.PIPE, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert caller.stdout is not None
    assert caller.stdout.readline()
    ranks = psutil.Process(caller.pid).children(recursive=True)
    assert len(ranks) >= 2
    caller.kill()
    caller.wait(10)
    caller.stdout.close()
    deadline = time.monotonic() + 60
    while any(rank.is_running() and rank.status() != psutil.STATUS_ZOMBIE for rank in ranks):
        assert time.monotonic() < deadline, "ranks outlived their caller"
        time.sleep(0.2)


def test_ranks_leave_the_caller_s_torch_alone(model_path: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads(), torch.distributed.is_initialized()
    finetune_in_processes(model_path, tmp_path / "out", random_pairs(4), settings(num_ranks=1, num_threads=1), 0)
    assert (torch.get_num_threads(), torch.distributed.is_initialized()) == before
