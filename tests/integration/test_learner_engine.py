"""The learner on a real DeepSpeed engine."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from learner.engine import join_ranks
from learner.learner import Learner
from learner.settings import AdvantageSettings, LearnerSettings
from learner.snapshot import SnapshotError
from tests.learner_groups import make_group, random_groups
from tests.tiny_model import write_tiny_model

DTYPES = ["float32", "bfloat16"]


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny", spread=0.2)


def make_learner(model_path: Path, **settings: object) -> Learner:
    values = {"dtype": "float32", "micro_batch_tokens": 512, "lr": 1e-3, **settings}
    return Learner(str(model_path), LearnerSettings.model_validate(values), AdvantageSettings(), 0)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("dtype", DTYPES)
def test_step_changes_the_weights_and_reports(model_path: Path, dtype: str) -> None:
    learner = make_learner(model_path, dtype=dtype)
    before = learner.weights()
    metrics = learner.train_step(random_groups(4), 0)
    after = learner.weights()
    assert not same(before, after)
    assert all(tensor.dtype == getattr(torch, dtype) and tensor.is_contiguous() for tensor in after.values())
    assert "lm_head.weight" not in after
    assert metrics["updates"] == 1.0
    assert metrics["grad_norm"] > 0
    assert all(math.isfinite(value) for value in metrics.values())


def test_training_raises_the_probability_of_what_won(model_path: Path) -> None:
    learner = make_learner(model_path, lr=3e-3, dual_clip=100.0)
    groups = [make_group([[10.0], [0.0]], index=i) for i in range(4)]
    first = learner.train_step(groups, 0)
    for version in range(1, 6):
        last = learner.train_step(groups, version)
    assert last["approx_kl"] != pytest.approx(first["approx_kl"])
    won = [t.turns[0] for group in groups for t in group.trajectories if t.won]
    lost = [t.turns[0] for group in groups for t in group.trajectories if not t.won]
    start = make_learner(model_path)
    assert _logprob(learner, won) > _logprob(start, won)
    assert _logprob(learner, lost) < _logprob(start, lost)


@pytest.mark.parametrize("dtype", DTYPES)
def test_resume_is_bitwise(model_path: Path, tmp_path: Path, dtype: str) -> None:
    steps = [random_groups(3, seed=step, version=step) for step in range(4)]
    undisturbed = make_learner(model_path, dtype=dtype, minibatches=2)
    for version, groups in enumerate(steps):
        if version == 2:
            undisturbed.save(tmp_path / "snapshot")
            state = torch.get_rng_state()
        undisturbed.train_step(groups, version)
    resumed = make_learner(model_path, dtype=dtype, minibatches=2)
    resumed.load(tmp_path / "snapshot")
    assert torch.equal(torch.get_rng_state(), state)
    assert resumed.updates == 4
    for version in (2, 3):
        metrics = resumed.train_step(steps[version], version)
    assert same(resumed.weights(), undisturbed.weights())
    assert metrics["lr"] == pytest.approx(1e-3)


@pytest.mark.parametrize("settings", [{"dtype": d, "zero_stage": z} for d in DTYPES for z in (0, 1, 2)])
def test_gradient_that_is_not_finite_is_skipped(model_path: Path, settings: dict[str, object]) -> None:
    learner = make_learner(model_path, **settings)
    learner.train_step(random_groups(2), 0)
    before = learner.weights()
    handle = learner._policy.get_input_embeddings().weight.register_hook(lambda grad: grad * float("nan"))
    metrics = learner.train_step(random_groups(2, seed=1), 1)
    assert same(before, learner.weights())
    assert metrics["updates"] == 0.0
    assert metrics["updates_skipped"] == metrics["updates_skipped_total"] == 1.0
    handle.remove()
    recovered = learner.train_step(random_groups(2, seed=2), 2)
    assert recovered["updates"] == 1.0
    assert math.isfinite(recovered["grad_norm"])
    assert all(bool(torch.isfinite(tensor).all()) for tensor in learner.weights().values())


def test_gradient_does_not_depend_on_micro_batches(model_path: Path) -> None:
    norms = []
    for tokens in (64, 256, 8192):
        learner = make_learner(model_path, micro_batch_tokens=tokens, grad_clip=1e9)
        norms.append(learner.train_step(random_groups(4), 0)["grad_norm"])
    assert norms == pytest.approx([norms[0]] * 3, rel=1e-5)


def test_group_without_signal_is_measured_and_not_trained_on(model_path: Path) -> None:
    learner = make_learner(model_path)
    before = learner.weights()
    groups = [make_group([[0.0], [0.0]])]
    metrics = learner.train_step(groups, 0)
    assert same(before, learner.weights())
    assert metrics["updates"] == 0.0
    assert metrics["mismatch_kl"] > 0
    mixed = [make_group([[0.0], [0.0]]), make_group([[10.0], [0.0]], index=1)]
    assert learner.train_step(mixed, 1)["updates"] == 1.0


@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e-10), ("bfloat16", 1e-4)])
def test_exported_folder_has_the_probabilities_that_the_learner_trains(
    model_path: Path, tmp_path: Path, dtype: str, limit: float
) -> None:
    learner = make_learner(model_path, dtype=dtype)
    learner.train_step(random_groups(2), 0)
    learner.export(tmp_path / "model")
    AutoTokenizer.from_pretrained(tmp_path / "model")
    policy = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=getattr(torch, dtype))
    state = policy.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in learner.weights().items())
    groups = [_with_behaviour(policy, group) for group in random_groups(2, seed=5, version=1)]
    metrics = learner.train_step(groups, 1)
    assert 0 <= metrics["mismatch_kl"] < limit
    assert metrics["mismatch_kl"] == metrics["mismatch_kl_fresh"]
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]


def test_kl_to_the_reference_starts_at_zero_and_pulls_back(model_path: Path) -> None:
    learner = make_learner(model_path, kl_coef=0.1, lr_warmup_steps=0)
    assert learner.train_step(random_groups(2), 0)["reference_kl"] == pytest.approx(0.0, abs=1e-9)
    assert learner.train_step(random_groups(2, seed=1), 1)["reference_kl"] > 0


def test_snapshot_of_another_model_is_refused(model_path: Path, tmp_path: Path) -> None:
    other = write_tiny_model(tmp_path / "other", layers=1)
    make_learner(other).save(tmp_path / "snapshot")
    with pytest.raises(SnapshotError, match="is of another model: .*layers.1"):
        make_learner(model_path).load(tmp_path / "snapshot")


def test_snapshot_of_another_number_format_is_refused(model_path: Path, tmp_path: Path) -> None:
    make_learner(model_path).save(tmp_path / "snapshot")
    with pytest.raises(SnapshotError, match=r"learner\.dtype"):
        make_learner(model_path, dtype="bfloat16").load(tmp_path / "snapshot")


def test_damaged_snapshot_is_refused(model_path: Path, tmp_path: Path) -> None:
    learner = make_learner(model_path)
    learner.save(tmp_path / "snapshot")
    victim = max((tmp_path / "snapshot").rglob("*.pt"), key=lambda path: path.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-1000])
    with pytest.raises(SnapshotError, match="damaged: resume from an older one"):
        learner.load(tmp_path / "snapshot")
    (tmp_path / "snapshot" / "snapshot.json").unlink()
    with pytest.raises(SnapshotError, match="cut short"):
        learner.load(tmp_path / "snapshot")
    (tmp_path / "snapshot" / "snapshot.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(SnapshotError, match="format 99"):
        learner.load(tmp_path / "snapshot")


def test_second_place_in_one_process_is_refused(model_path: Path) -> None:
    make_learner(model_path)
    with pytest.raises(RuntimeError, match="rank 0 of 1, asked to be rank 1 of 2"):
        join_ranks(1, 2)


def _logprob(learner: Learner, turns: list) -> float:
    total = 0.0
    for turn in turns:
        ids = torch.tensor([[*turn.prompt_ids.tolist(), *turn.accepted.token_ids.tolist()]])
        with torch.no_grad():
            rows = torch.log_softmax(learner._policy(ids).logits[0].float(), -1)[len(turn.prompt_ids) - 1 : -1]
        chosen = rows.gather(1, torch.from_numpy(turn.accepted.token_ids.astype("int64"))[:, None])[:, 0]
        total += float(chosen[torch.from_numpy(~turn.accepted.forced)].sum())
    return total


def _with_behaviour(policy, group):
    """The group with behaviour log-probabilities computed one sequence at a time by `policy`."""
    import dataclasses

    trajectories = []
    for trajectory in group.trajectories:
        turns = []
        for turn in trajectory.turns:
            ids = torch.tensor([[*turn.prompt_ids.tolist(), *turn.accepted.token_ids.tolist()]])
            with torch.no_grad():
                rows = torch.log_softmax(policy(ids).logits[0].float(), -1)[len(turn.prompt_ids) - 1 : -1]
            chosen = rows.gather(1, torch.from_numpy(turn.accepted.token_ids.astype("int64"))[:, None])[:, 0]
            accepted = dataclasses.replace(turn.accepted, logprobs=chosen.numpy())
            turns.append(dataclasses.replace(turn, accepted=accepted))
        trajectories.append(dataclasses.replace(trajectory, turns=tuple(turns)))
    return dataclasses.replace(group, trajectories=tuple(trajectories))
