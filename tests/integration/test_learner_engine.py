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
from learner.optimizer_state import whole_states
from learner.settings import Algorithm, LearnerSettings, LossSettings
from learner.snapshot import SnapshotError
from tests.learner_groups import make_group, random_groups
from tests.tiny_model import write_tiny_model

DTYPES = ["float32", "bfloat16"]

pytestmark = pytest.mark.usefixtures("no_garbage_of_others")


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny", spread=0.2)


def make_learner(model_path: Path, algorithm: Algorithm | None = None, **settings: object) -> Learner:
    values = {"dtype": "float32", "micro_batch_tokens": 512, "lr": 1e-3, **settings}
    return Learner(str(model_path), LearnerSettings.model_validate(values), algorithm or Algorithm(), 0)


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
    learner = make_learner(model_path, Algorithm(loss=LossSettings(dual_clip=100.0)), lr=3e-3)
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
    assert "grad_norm" not in metrics, "a number that is not finite is no measurement"
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
    learner = make_learner(model_path, Algorithm(loss=LossSettings(kl_coef=0.1)), lr_warmup_steps=0)
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
    victim = max((tmp_path / "snapshot").rglob("*.safetensors"), key=lambda path: path.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-1000])
    with pytest.raises(SnapshotError, match="damaged: resume from an older one"):
        learner.load(tmp_path / "snapshot")
    (tmp_path / "snapshot" / "snapshot.json").unlink()
    with pytest.raises(SnapshotError, match="cut short"):
        learner.load(tmp_path / "snapshot")
    (tmp_path / "snapshot" / "snapshot.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(SnapshotError, match="format 99"):
        learner.load(tmp_path / "snapshot")


def test_snapshot_with_another_trained_part_is_refused(model_path: Path, tmp_path: Path) -> None:
    make_learner(model_path).save(tmp_path / "snapshot")
    with pytest.raises(SnapshotError, match=r"learner\.lora_rank and learner\.lora_targets as they were"):
        make_learner(model_path, lora_rank=2).load(tmp_path / "snapshot")


def test_snapshot_beside_other_frozen_weights_is_refused(model_path: Path, tmp_path: Path) -> None:
    """LoRA's snapshot has the adapters alone: they belong to the weights that they were trained beside."""
    other = write_tiny_model(tmp_path / "other", seed=1, spread=0.2)
    make_learner(other, lora_rank=2).save(tmp_path / "snapshot")
    with pytest.raises(SnapshotError, match="weights that LoRA leaves as they are differ"):
        make_learner(model_path, lora_rank=2).load(tmp_path / "snapshot")


def test_weights_that_are_not_finite_are_never_saved(model_path: Path, tmp_path: Path) -> None:
    learner = make_learner(model_path)
    with torch.no_grad():
        learner._policy.get_input_embeddings().weight[3, 3] = float("nan")
    with pytest.raises(SnapshotError, match="embed_tokens.weight/weight is not finite: nothing is saved"):
        learner.save(tmp_path / "snapshot")
    assert not (tmp_path / "snapshot" / "snapshot.json").exists()


def test_snapshot_before_the_first_update_is_taken_up(model_path: Path, tmp_path: Path) -> None:
    fresh = make_learner(model_path)
    fresh.save(tmp_path / "snapshot")
    used = make_learner(model_path, lr_warmup_steps=0)
    used.train_step(random_groups(2), 0)
    used.load(tmp_path / "snapshot")
    assert used.updates == 0
    assert same(used.weights(), fresh.weights())
    for learner in (used, fresh):
        learner.train_step(random_groups(2, seed=1), 0)
    moments = [dict(whole_states(learner._engine)) for learner in (used, fresh)]
    assert all(torch.equal(moments[0][name]["exp_avg"], states["exp_avg"]) for name, states in moments[1].items())


@pytest.mark.parametrize("dtype", DTYPES)
def test_lora_trains_the_adapters_alone_and_hands_out_plain_weights(
    model_path: Path, tmp_path: Path, dtype: str
) -> None:
    plain = make_learner(model_path, dtype=dtype).weights()
    learner = make_learner(model_path, dtype=dtype, lora_rank=4, lora_targets="q_proj, down_proj", lr=1e-2)
    assert same(learner.weights(), plain), "an adapter begins as nothing"
    steps = [random_groups(3, seed=step, version=step) for step in range(3)]
    learner.train_step(steps[0], 0)
    learner.save(tmp_path / "snapshot")
    resumed = make_learner(model_path, dtype=dtype, lora_rank=4, lora_targets="q_proj, down_proj", lr=1e-2)
    resumed.load(tmp_path / "snapshot")
    for one in (learner, resumed):
        for version in (1, 2):
            one.train_step(steps[version], version)
    weights = learner.weights()
    assert same(weights, resumed.weights())
    assert {name: tensor.dtype for name, tensor in weights.items()} == {n: t.dtype for n, t in plain.items()}
    changed = {name.rsplit(".", 2)[1] for name in plain if not torch.equal(plain[name], weights[name])}
    assert changed == {"q_proj", "down_proj"}
    learner.export(tmp_path / "model")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=getattr(torch, dtype)).state_dict()
    assert all(torch.equal(exported[name], tensor) for name, tensor in weights.items())


def test_lora_layer_that_the_model_does_not_have_is_refused(model_path: Path) -> None:
    with pytest.raises(ValueError, match=r"learner\.lora_targets = 'q_prj': .* no linear layer q_prj; it has .*q_proj"):
        make_learner(model_path, lora_rank=2, lora_targets="q_prj")


def test_lora_alpha_scales_what_is_learned(model_path: Path) -> None:
    """One update moves the adapters alike (AdamW); what they add to the weights goes with alpha."""
    plain = make_learner(model_path).weights()["model.layers.0.self_attn.q_proj.weight"]
    moved = []
    for alpha in (4, 8):
        learner = make_learner(model_path, lora_rank=2, lora_alpha=alpha, lr_warmup_steps=0)
        learner.train_step(random_groups(2), 0)
        moved.append(float((learner.weights()["model.layers.0.self_attn.q_proj.weight"] - plain).norm()))
    assert moved[1] == pytest.approx(2 * moved[0], rel=0.05)


def test_activation_checkpointing_keeps_less_for_the_backward_pass(model_path: Path) -> None:
    kept = {}
    for recompute in (False, True):
        learner = make_learner(model_path, activation_checkpointing=recompute)
        sizes: list[int] = []

        def note(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            learner._engine(torch.ones(4, 64, dtype=torch.long), torch.arange(4), torch.arange(4))
        kept[recompute] = sum(sizes)
    assert kept[True] < 0.5 * kept[False]


def test_offload_leaves_the_optimizer_to_the_host(model_path: Path) -> None:
    learner = make_learner(model_path, zero_stage=1, offload="optimizer")
    assert learner._engine.optimizer.cpu_offload
    assert not make_learner(model_path, zero_stage=1)._engine.optimizer.cpu_offload
    both = make_learner(model_path, zero_stage=3, offload="optimizer+parameters")
    assert both._engine.zero_offload_param() is not None


def test_learning_rate_follows_the_schedule_over_the_run(model_path: Path, tmp_path: Path) -> None:
    settings = LearnerSettings(
        dtype="float32", micro_batch_tokens=512, lr=1e-3, lr_warmup_steps=1, lr_schedule="linear", lr_min_ratio=0.2
    )
    learner = Learner(str(model_path), settings, Algorithm(), 0, num_steps=5)
    rates = []
    for version in range(5):
        rates.append(learner.train_step(random_groups(2, seed=version), version)["lr"])
        if version == 2:
            learner.save(tmp_path / "snapshot")
    assert rates == pytest.approx([0.5e-3, 0.8e-3, 0.6e-3, 0.4e-3, 0.2e-3])
    longer = Learner(str(model_path), settings, Algorithm(), 0, num_steps=9)
    longer.load(tmp_path / "snapshot")
    assert longer.train_step(random_groups(2, seed=3), 3)["lr"] == pytest.approx(0.7e-3), "3 of 8 steps of decay"


def test_reward_that_is_not_finite_is_refused_by_name(model_path: Path) -> None:
    learner = make_learner(model_path)
    before = learner.weights()
    groups = [make_group([[1.0], [0.0]]), make_group([[0.0, 0.0], [1.0]], index=1)]
    turn = groups[1].trajectories[0].turns[1]
    object.__setattr__(turn, "reward", float("nan"))  # a Turn refuses it: what was damaged later is meant
    with pytest.raises(ValueError, match="group group-1: .*trajectory 0, turn 1 has reward nan"):
        learner.train_step(groups, 0)
    assert same(before, learner.weights())


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
