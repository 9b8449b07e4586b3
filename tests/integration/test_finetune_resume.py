"""A fine-tuning that is interrupted goes on from its last snapshot and ends with the same weights, bit by bit."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from learner.finetune import FinetuneProgress, finetune
from learner.finetune_place import PlaceError
from learner.finetune_ranks import finetune_in_processes
from learner.settings import ColdstartSettings
from tests.tiny_model import random_pairs, write_tiny_model

ROOT = Path(__file__).resolve().parents[2]
PAIRS = random_pairs(40)
VALUES = {"epochs": 3, "lr": 3e-3, "batch_tokens": 512, "max_duration_s": 600.0, "save_every_s": 0.0}


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def settings(**values: object) -> ColdstartSettings:
    return ColdstartSettings.model_validate({**VALUES, **values})


@pytest.fixture(scope="module")
def undisturbed(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[FinetuneProgress]]:
    folder = tmp_path_factory.mktemp("undisturbed") / "out"
    seen: list[FinetuneProgress] = []
    finetune(model_path, folder, PAIRS, settings(), 0, prompt_loss_weight=0.2, on_progress=seen.append)
    return folder, seen


def same_weights(one: Path, other: Path) -> bool:
    a, b = (AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (one, other))
    return all(torch.equal(a[name], b[name]) for name in a)


class Interruption(Exception):
    pass


def interrupted_at(step: int, seen: list[FinetuneProgress]):  # type: ignore[no-untyped-def]
    def on_progress(progress: FinetuneProgress) -> None:
        seen.append(progress)
        if progress.step == step:
            raise Interruption

    return on_progress


@pytest.mark.parametrize("step", [1, 4, 9])
def test_goes_on_after_an_exception_as_if_there_had_been_none(
    step: int, model_path: Path, tmp_path: Path, undisturbed: tuple[Path, list[FinetuneProgress]]
) -> None:
    """A snapshot is written before each step, so the one that was interrupted is done again."""
    whole, expected = undisturbed
    out, snapshots = tmp_path / "out", tmp_path / "snapshots"
    seen: list[FinetuneProgress] = []
    with pytest.raises(Interruption):
        finetune(
            model_path, out, PAIRS, settings(), 0,
            prompt_loss_weight=0.2, snapshots=snapshots, on_progress=interrupted_at(step, seen),
        )  # fmt: skip
    assert not out.exists()
    torch.rand(100)  # what came between must not matter
    metrics = finetune(
        model_path, out, PAIRS, settings(), 0,
        prompt_loss_weight=0.2, snapshots=snapshots, on_progress=seen.append,
    )  # fmt: skip
    begins_at = max(step - 1, 0)
    assert [one.step for one in seen] == [*range(1, step + 1), *range(begins_at + 1, len(expected) + 1)]
    assert [(one.loss, one.lr, one.tokens) for one in seen[step:]] == [
        (one.loss, one.lr, one.tokens) for one in expected[begins_at:]
    ]
    assert metrics["steps"] == len(expected) and metrics["tokens"] == expected[-1].tokens
    assert same_weights(out, whole)
    assert len(list(snapshots.glob("step-*"))) == 1


CALLER = """
import sys
from pathlib import Path
from learner.finetune_ranks import finetune_in_processes
from learner.settings import ColdstartSettings
from tests.integration.test_finetune_resume import PAIRS, VALUES
if __name__ == "__main__":
    finetune_in_processes(sys.argv[1], Path(sys.argv[2]), PAIRS, ColdstartSettings(**VALUES), 0, prompt_loss_weight=0.2,
                          snapshots=Path(sys.argv[3]), on_progress=lambda one: print(one.step, flush=True))
"""


def test_goes_on_after_kill_9(
    model_path: Path, tmp_path: Path, undisturbed: tuple[Path, list[FinetuneProgress]]
) -> None:
    whole, expected = undisturbed
    script, out, snapshots = tmp_path / "caller.py", tmp_path / "out", tmp_path / "snapshots"
    script.write_text(CALLER)
    caller = subprocess.Popen(
        [sys.executable, str(script), str(model_path), str(out), str(snapshots)],
        stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert caller.stdout is not None
    for line in caller.stdout:
        if int(line) == 5:
            caller.send_signal(signal.SIGKILL)
            break
    caller.wait(60)
    caller.stdout.close()
    assert not out.exists()
    assert list(snapshots.glob("step-*"))
    seen: list[FinetuneProgress] = []
    finetune_in_processes(
        model_path, out, PAIRS, settings(), 0, prompt_loss_weight=0.2, snapshots=snapshots, on_progress=seen.append
    )
    assert 1 < seen[0].step <= len(expected)
    assert [one.loss for one in seen] == [one.loss for one in expected[seen[0].step - 1 :]]
    assert same_weights(out, whole)


def test_two_ranks_go_on_together(
    model_path: Path, tmp_path: Path, undisturbed: tuple[Path, list[FinetuneProgress]]
) -> None:
    """To rounding: two ranks add up in another order than one."""
    _, expected = undisturbed
    two, out, snapshots = settings(num_ranks=2), tmp_path / "out", tmp_path / "snapshots"
    seen: list[FinetuneProgress] = []
    for watch in (interrupted_at(5, []), seen.append):
        with pytest.raises(Interruption) if watch != seen.append else nullcontext():
            finetune_in_processes(
                model_path, out, PAIRS, two, 0, prompt_loss_weight=0.2, snapshots=snapshots, on_progress=watch
            )
    assert seen[0].step > 1
    assert [one.loss for one in seen] == pytest.approx([one.loss for one in expected[seen[0].step - 1 :]], rel=1e-3)


def test_snapshots_are_as_seldom_as_told(model_path: Path, tmp_path: Path) -> None:
    finetune(model_path, tmp_path / "out", PAIRS, settings(save_every_s=600.0), 0, snapshots=tmp_path / "snapshots")
    assert not list((tmp_path / "snapshots").glob("step-*"))


def test_time_before_the_kill_counts_for_the_deadline(model_path: Path, tmp_path: Path) -> None:
    snapshots = tmp_path / "snapshots"
    with pytest.raises(Interruption):
        finetune(
            model_path, tmp_path / "out", PAIRS, settings(), 0, snapshots=snapshots, on_progress=interrupted_at(4, [])
        )
    page = next(snapshots.glob("step-*")) / "place.json"
    page.write_text(json.dumps(json.loads(page.read_text()) | {"trained_s": 1000.0}))
    metrics = finetune(model_path, tmp_path / "out", PAIRS, settings(), 0, snapshots=snapshots)
    assert metrics["stopped_by_deadline"] == 1.0 and metrics["steps"] == 3.0
    assert metrics["loss"] > 0.0


def test_snapshot_that_does_not_fit_is_refused_with_the_remedy(model_path: Path, tmp_path: Path) -> None:
    snapshots, out = tmp_path / "snapshots", tmp_path / "out"
    with pytest.raises(Interruption):
        finetune(model_path, out, PAIRS, settings(), 0, snapshots=snapshots, on_progress=interrupted_at(4, []))
    with pytest.raises(PlaceError, match=r"other demonstrations .* remove .*snapshots to train from the beginning"):
        finetune(model_path, out, PAIRS[1:], settings(), 0, snapshots=snapshots)
    weights = next(next(snapshots.glob("step-*")).glob("state-*"))
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(PlaceError, match=r"is damaged.* Remove .*snapshots to train from the beginning"):
        finetune(model_path, out, PAIRS, settings(), 0, snapshots=snapshots)
    assert not out.exists()


def test_masked_tokens_are_read_and_not_learned(model_path: Path, tmp_path: Path) -> None:
    """Which token stands at a masked place decides what follows, and its own probability does not rise."""
    prompt, reply = np.arange(10, 20, dtype=np.int32), np.array([50, 51, 52, 53], dtype=np.int32)
    mask = np.array([True, False, True, True])
    values = settings(epochs=30, batch_tokens=64, save_every_s=600.0)
    finetune(model_path, tmp_path / "out", [(prompt, reply)] * 4, values, 0, masks=[mask] * 4)
    policy = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    ids = torch.from_numpy(np.concatenate([prompt, reply]).astype(np.int64))[None]
    with torch.no_grad():
        log_probs = torch.log_softmax(policy(ids).logits[0, len(prompt) - 1 : -1].float(), -1)
    of_reply = log_probs[torch.arange(4), torch.from_numpy(reply.astype(np.int64))]
    assert bool((of_reply[mask] > -0.5).all()) and float(of_reply[1]) < -2.0
    with pytest.raises(ValueError, match="demonstration 0: its mask must have a place for each reply token"):
        finetune(model_path, tmp_path / "no", [(prompt, reply)], settings(), 0, masks=[mask[1:]])
