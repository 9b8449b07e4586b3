"""Every algorithm trains a real learner: each preset, each knob, decoupled PPO against an oracle, the critic."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from controller.config import RunConfig, merge
from controller.part_settings import learner_algorithm
from envs.records import Trajectory, TrajectoryGroup, Turn
from learner.learner import Learner
from learner.optimizer_state import whole_states
from learner.presets import ALGORITHMS
from learner.snapshot import SnapshotError
from tests.learner_groups import make_group
from tests.tiny_model import write_tiny_model

SEED = 0

pytestmark = pytest.mark.usefixtures("no_garbage_of_others")


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny", layers=1, spread=0.2)


@pytest.fixture(scope="module")
def groups(model_path: Path) -> list[TrajectoryGroup]:
    """Two groups with wins and losses, one without, as the start policy would have sampled them."""
    policy = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    rewards = [[[0.0, 10.0], [0.0], [0.0, 0.0]], [[10.0], [0.0]], [[0.0], [0.0]]]
    return [_as_sampled(policy, make_group(each, index=index)) for index, each in enumerate(rewards)]


def make(model_path: Path, learner: dict[str, Any] | None = None, **tree: Any) -> Learner:
    values = {"dtype": "float32", "micro_batch_tokens": 512, "lr": 1e-3, "lr_warmup_steps": 0, "grad_clip": 1e9}
    config = RunConfig.model_validate({"learner": {**values, **(learner or {})}, **tree})
    return Learner(str(model_path), config.learner, learner_algorithm(config), SEED)


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_every_algorithm_raises_the_probability_of_what_went_well(
    model_path: Path, groups: list[TrajectoryGroup], name: str
) -> None:
    learner = make(model_path, algorithm=name)
    won = [turn for group in groups for one in group.trajectories if one.won for turn in one.turns[-1:]]
    before = sum(_logprobs(learner._policy, turn)[~turn.accepted.forced].sum() for turn in won)
    metrics = learner.train_step(groups, 0)
    after = sum(_logprobs(learner._policy, turn)[~turn.accepted.forced].sum() for turn in won)
    assert after > before
    assert metrics["updates"] == 1.0
    assert all(math.isfinite(value) for value in metrics.values()), metrics
    assert metrics["mismatch_kl"] == pytest.approx(0.0, abs=1e-9)
    dropped = 1.0 if name in ("dapo", "sampo") else None
    assert metrics.get("groups_dropped") == dropped
    assert metrics["samples"] == (7.0 if dropped else 9.0)
    assert ("value_loss" in metrics) == (name == "ppo")


KNOBS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"algorithm": "grpo"}),
    ({}, {"advantage": {"estimator": "rloo"}}),
    ({}, {"advantage": {"gamma": 0.5}}),
    ({"algorithm": "ppo"}, {"advantage": {"gae_lambda": 0.1, "gamma": 0.5}}),
    ({}, {"advantage": {"step_weight": 0.0}}),
    ({}, {"advantage": {"normalise": "mean_std_norm"}}),
    ({}, {"advantage": {"group_mean": "per_turn"}}),
    ({}, {"advantage": {"whiten": True}}),
    ({}, {"advantage": {"keep_groups": "mixed_success"}}),
    ({}, {"advantage": {"invalid_penalty": 2.0}}),
    ({}, {"advantage": {"anchor_similarity": 0.8}}),
    ({}, {"loss": {"policy": "sequence_ratio"}}),
    ({}, {"loss": {"clip_low": 0.01}}),
    ({}, {"loss": {"clip_high": 0.01}}),
    ({}, {"loss": {"dual_clip": 1.01}}),
    ({}, {"loss": {"kl_coef": 1.0}}),
    ({"loss": {"kl_coef": 1.0}}, {"loss": {"kl_estimator": "k2"}}),
    ({"loss": {"kl_coef": 1.0}}, {"loss": {"kl_in": "reward"}}),
    ({}, {"loss": {"entropy_coef": 0.1}}),
    *(({}, {"loss": {"aggregation": name}}) for name in ("sequence_mean", "constant", "trajectory_mean")),
    ({}, {"correction": {"proximal": "recomputed"}}),
    *(({"correction": {"proximal": "recomputed"}}, {"correction": {"weight": name}}) for name in ("token", "sequence")),
    ({"correction": {"proximal": "recomputed", "weight": "token"}}, {"correction": {"weight_max": 0.5}}),
    *(({}, {"correction": {"mask": name}}) for name in ("token", "sequence", "geometric")),
    ({"correction": {"mask": "token"}}, {"correction": {"mask_low": 0.95}}),
    ({"correction": {"mask": "token"}}, {"correction": {"mask_high": 1.05}}),
]
"""What a run has, and the knob that is turned."""


@pytest.fixture(scope="module")
def stale(groups: list[TrajectoryGroup]) -> list[TrajectoryGroup]:
    """The same groups, sampled by a policy that is some way off."""
    rng = np.random.default_rng(1)

    def moved(turn: Turn) -> Turn:
        noise = rng.normal(scale=0.4, size=len(turn.accepted.logprobs)).astype(np.float32)
        return dataclasses.replace(
            turn, accepted=dataclasses.replace(turn.accepted, logprobs=turn.accepted.logprobs + noise)
        )

    return [_each_turn(group, moved) for group in groups]


@pytest.fixture(scope="module")
def flawed(stale: list[TrajectoryGroup]) -> list[TrajectoryGroup]:
    """The same with one reply that is invalid."""
    first, *others = stale
    one, *siblings = first.trajectories
    turns = (dataclasses.replace(one.turns[0], format_valid=False, valid=False), *one.turns[1:])
    return [dataclasses.replace(first, trajectories=(dataclasses.replace(one, turns=turns), *siblings)), *others]


@pytest.mark.parametrize(("base", "knob"), KNOBS)
def test_every_knob_acts(
    model_path: Path, flawed: list[TrajectoryGroup], base: dict[str, Any], knob: dict[str, Any]
) -> None:
    first = _trained(model_path, flawed, base)
    second = _trained(model_path, flawed, merge(base, knob))
    assert not all(torch.equal(first[name], second[name]) for name in first)


_KNOWN: dict[str, dict[str, torch.Tensor]] = {}


def _trained(model_path: Path, groups: list[TrajectoryGroup], tree: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Weights after two steps of two epochs."""
    if str(tree) not in _KNOWN:
        learner = make(model_path, {"epochs": 2}, **tree)
        for version in range(2):
            learner.train_step(groups, version)
        _KNOWN[str(tree)] = learner.weights()
    return _KNOWN[str(tree)]


@pytest.mark.parametrize("weight", ["token", "sequence"])
def test_decoupled_ppo_equals_the_oracle(model_path: Path, stale: list[TrajectoryGroup], weight: str) -> None:
    """The gradient of the second update, where the policy is no longer the proximal one, against the whole loss in
    float64: π_prox/μ cut off at 1.2 x clipped ratio, tokens with a weight outside [0.6, 1.8] masked, token mean."""
    tree: dict[str, Any] = {
        "loss": {"clip_low": 0.1, "clip_high": 0.1},
        "correction": {
            "proximal": "recomputed", "weight": weight, "weight_max": 1.2,
            "mask": "token", "mask_low": 0.6, "mask_high": 1.8,
        },
    }  # fmt: skip
    once, twice = (make(model_path, {"epochs": epochs, "lr": 5e-5}, **tree) for epochs in (1, 2))
    metrics = once.train_step(stale, 0)
    twice.train_step(stale, 0)
    first, second = (
        {name: state["exp_avg"].double() for name, state in whole_states(learner._engine)} for learner in (once, twice)
    )
    found = {name.removeprefix("policy."): (second[name] - 0.9 * first[name]) / 0.1 for name in first}

    proximal = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float64)
    policy = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float64)
    policy.load_state_dict(once.weights(), strict=False)
    losses, kept, clipped, total = [], 0, 0, 0
    for group in stale:
        for trajectory, advantages in zip(group.trajectories, _gigpo(group), strict=True):
            for turn, advantage in zip(trajectory.turns, advantages, strict=True):
                sampled = np.flatnonzero(~turn.accepted.forced)
                with torch.no_grad():
                    start = _logprobs(proximal, turn)
                now = _logprobs(policy, turn)
                log_weights = [float(start[t]) - float(turn.accepted.logprobs[t]) for t in sampled]
                for t, log_weight in zip(sampled, log_weights, strict=True):
                    total += 1
                    if not 0.6 <= math.exp(log_weight) <= 1.8:
                        continue
                    kept += 1
                    factor = min(math.exp(log_weight if weight == "token" else math.fsum(log_weights)), 1.2)
                    ratio = (now[t] - start[t]).exp()
                    bounded = ratio.clamp(0.9, 1.1)
                    clipped += int(bounded != ratio)
                    loss = torch.maximum(-ratio * advantage, -bounded * advantage)
                    if advantage < 0:
                        loss = torch.minimum(loss, torch.tensor(-3.0 * advantage))
                    losses.append(factor * loss)
    (torch.stack(losses).sum() / kept).backward()
    expected = {name: parameter.grad for name, parameter in policy.named_parameters() if parameter.grad is not None}
    assert 0 < clipped < kept < total, "the case must reach the clip and the mask"
    assert metrics["masked_share"] == pytest.approx(1 - kept / total)
    away = sum(float((found[name] - gradient).square().sum()) for name, gradient in expected.items())
    whole = sum(float(gradient.square().sum()) for gradient in expected.values())
    assert found.keys() == expected.keys()
    assert math.sqrt(away / whole) < 2e-4


def test_proximal_log_probabilities_are_those_of_the_step_s_start(
    model_path: Path, stale: list[TrajectoryGroup]
) -> None:
    """The first update's ratio is 1 whatever sampled; the mismatch is measured against what sampled."""
    recomputed = make(model_path, correction={"proximal": "recomputed"}).train_step(stale, 0)
    plain = make(model_path).train_step(stale, 0)
    assert recomputed["approx_kl"] == pytest.approx(0.0, abs=1e-9)
    assert plain["approx_kl"] > 1e-2
    for name in ("mismatch_kl", "mismatch_log_ratio", "mismatch_kl_fresh", "weight_max", "weight_ess"):
        assert recomputed[name] == pytest.approx(plain[name], rel=1e-4)


def test_a_step_without_a_group_that_is_kept_trains_nothing(model_path: Path, groups: list[TrajectoryGroup]) -> None:
    for name in ("dapo", "ppo"):
        learner = make(model_path, algorithm=name, advantage={"keep_groups": "mixed_success"})
        before = learner.weights()
        metrics = learner.train_step(groups[2:], 0)
        assert (metrics["groups_dropped"], metrics["updates"], metrics["samples"]) == (1.0, 0.0, 0.0)
        assert all(torch.equal(before[name], tensor) for name, tensor in learner.weights().items())


def test_the_critic_learns_the_returns(model_path: Path, groups: list[TrajectoryGroup]) -> None:
    learner = make(
        model_path, algorithm="ppo", critic={"lr": 3e-3, "value_clip": 0.0, "epochs": 4}, advantage={"gae_lambda": 1.0}
    )
    first = learner.train_step(groups, 0)
    assert (first["value_mean"], first["explained_variance"]) == (0.0, pytest.approx(0.0)), "every value begins at 0"
    for version in range(1, 12):
        last = learner.train_step(groups, version)
    assert last["explained_variance"] > 0.5
    assert last["value_loss"] < 0.5 * first["value_loss"]


@pytest.mark.parametrize(
    "knob",
    [
        {"lr": 1e-3},
        {"weight_decay": 0.9},
        {"grad_clip": 1e-3},
        {"value_clip": 1e-4},
        {"epochs": 3},
        {"warmup_steps": 1},
    ],
)
def test_every_knob_of_the_critic_acts(model_path: Path, groups: list[TrajectoryGroup], knob: dict[str, Any]) -> None:
    found = []
    for values in ({}, knob):
        learner = make(model_path, algorithm="ppo", critic={"lr": 1e-4, "weight_decay": 0.0, "epochs": 2, **values})
        metrics = [learner.train_step(groups, version) for version in range(3)]
        assert learner._critic is not None
        found.append(dict(whole_states(learner._critic._engine)))
    if "warmup_steps" in knob:
        assert [one["updates"] for one in metrics] == [0.0, 1.0, 1.0]
    else:
        assert not all(torch.equal(found[0][name]["weight"], states["weight"]) for name, states in found[1].items())


def test_resuming_with_a_critic_is_bitwise(model_path: Path, groups: list[TrajectoryGroup], tmp_path: Path) -> None:
    settings = {"minibatches": 2}
    undisturbed, resumed = (make(model_path, settings, algorithm="ppo", critic={"lr": 1e-3}) for _ in range(2))
    undisturbed.train_step(groups, 0)
    undisturbed.save(tmp_path / "saved")
    resumed.load(tmp_path / "saved")
    for version in (1, 2):
        ours, theirs = (learner.train_step(groups, version) for learner in (undisturbed, resumed))
        for timed in ("train_s", "train_tokens_per_s"):
            del ours[timed], theirs[timed]
        assert ours == theirs
    weights = resumed.weights()
    assert all(torch.equal(weights[name], tensor) for name, tensor in undisturbed.weights().items())
    with pytest.raises(SnapshotError, match="critic: snapshot.json is missing"):
        make(model_path, settings).save(tmp_path / "without")
        resumed.load(tmp_path / "without")


def test_lora_s_critic_is_trained_whole(model_path: Path, groups: list[TrajectoryGroup]) -> None:
    learner = make(model_path, {"lora_rank": 2}, algorithm="ppo", loss={"kl_coef": 0.1, "kl_in": "reward"})
    metrics = [learner.train_step(groups, version) for version in range(2)]
    assert metrics[0]["reference_kl"] == pytest.approx(0.0, abs=1e-9) and metrics[1]["reference_kl"] > 0
    assert learner._critic is not None and learner._critic.updates == 2


def test_one_s_own_estimator_and_loss_by_name(
    model_path: Path, groups: list[TrajectoryGroup], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example of docs/algorithms.md, word for word."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "algorithms.md").read_text(encoding="utf-8")
    (tmp_path / "my_algorithm.py").write_text(page.split("```python\n")[1].split("```")[0], encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    learner = make(
        model_path, advantage={"estimator": "my_algorithm:best_of_group"}, loss={"policy": "my_algorithm:squared"}
    )
    assert learner.train_step(groups, 0)["updates"] == 1.0


def _each_turn(group: TrajectoryGroup, change: Any) -> TrajectoryGroup:
    def changed(trajectory: Trajectory) -> Trajectory:
        return dataclasses.replace(trajectory, turns=tuple(change(turn) for turn in trajectory.turns))

    return dataclasses.replace(group, trajectories=tuple(changed(one) for one in group.trajectories))


def _as_sampled(policy: PreTrainedModel, group: TrajectoryGroup) -> TrajectoryGroup:
    def sampled(turn: Turn) -> Turn:
        with torch.no_grad():
            logprobs = _logprobs(policy, turn).float().numpy()
        return dataclasses.replace(turn, accepted=dataclasses.replace(turn.accepted, logprobs=logprobs))

    return _each_turn(group, sampled)


def _logprobs(policy: PreTrainedModel, turn: Turn) -> torch.Tensor:
    """[R] of the reply's tokens, one sequence at a time, no packing."""
    reply = torch.from_numpy(turn.accepted.token_ids.astype(np.int64))
    ids = torch.cat([torch.from_numpy(turn.prompt_ids.astype(np.int64)), reply])[None]
    rows = torch.log_softmax(policy(ids).logits[0], -1)[len(turn.prompt_ids) - 1 : -1]
    return rows.gather(1, reply[:, None])[:, 0]


def _gigpo(group: TrajectoryGroup) -> list[list[float]]:
    """METHOD section 5 with F = 1, written out; no turn is invalid."""
    totals = [sum(turn.reward for turn in one.turns) for one in group.trajectories]
    returns = [
        [sum(0.95 ** (k - t) * one.turns[k].reward for k in range(t, len(one.turns))) for t in range(len(one.turns))]
        for one in group.trajectories
    ]
    result = []
    for i, one in enumerate(group.trajectories):
        row = []
        for t, turn in enumerate(one.turns):
            cluster = [
                returns[j][u]
                for j, other in enumerate(group.trajectories)
                for u, state in enumerate(other.turns)
                if state.observation == turn.observation
            ]
            row.append(totals[i] - sum(totals) / len(totals) + returns[i][t] - sum(cluster) / len(cluster))
        result.append(row)
    return result
