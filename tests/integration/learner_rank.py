"""What one learner rank does for tests/integration/test_learner_ranks.py; started as a process, once for all cases."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from envs.records import TrajectoryGroup
from learner.learner import Learner
from learner.optimizer_state import whole_states
from learner.samples import build_samples
from learner.settings import (
    AdvantageSettings,
    Algorithm,
    CorrectionSettings,
    CriticSettings,
    LearnerSettings,
    LossSettings,
)
from tests.learner_groups import make_group

STEPS = [
    [make_group([[10.0], [0.0, 0.0], [0.0, 10.0]], index=index, seed=seed, version=seed) for index in range(2)]
    for seed in range(3)
]
FEW = [make_group([[10.0], [0.0]])]
"""Two samples: on three ranks one has none."""
CASES = [*(("float32", stage) for stage in (0, 1, 2, 3)), *(("bfloat16", stage) for stage in (1, 2, 3))]
FLOATS = [case for case in CASES if case[0] == "float32"]
"""One rank is what the others are held against; on three, what two have shown for each stage is not shown again for
each number format. The cases of one number are gone through in one process a rank: starting costs more than they."""
UPDATES = {
    1: [("float32", 0), ("float32", 3), ("bfloat16", 1)],
    2: CASES,
    3: [*FLOATS, ("bfloat16", 1), ("bfloat16", 3)],
}
NOT_FINITE = {1: [("float32", 3)], 2: CASES, 3: [("float32", 0), ("float32", 1), ("bfloat16", 2)]}
GO_ON = {1: [("float32", 0), ("float32", 3), ("bfloat16", 1)], 2: CASES, 3: [("float32", 2), ("bfloat16", 3)]}
PACKINGS = [(64, 0), (64, 2), (8192, 0)]
FEW_AND_SCORE = {1: [0], 2: [0, 3], 3: [0, 1, 2, 3]}
LORA = {1: [0], 2: [1, 3], 3: [0]}
WITH_KL = Algorithm(loss=LossSettings(kl_coef=0.1))
PPO = {1: [0], 2: [0, 3], 3: [2]}
WITH_CRITIC = Algorithm(
    advantage=AdvantageSettings(estimator="gae", whiten=True),
    correction=CorrectionSettings(proximal="recomputed", weight="token"),
    critic=CriticSettings(lr=1e-3),
)
MEMORY: dict[str, dict[str, Any]] = {
    "checkpointing": {"zero_stage": 0, "activation_checkpointing": True},
    "checkpointing, weights split": {"zero_stage": 3, "activation_checkpointing": True},
    "optimizer": {"zero_stage": 2, "offload": "optimizer"},
    "optimizer+parameters": {"zero_stage": 3, "offload": "optimizer+parameters"},
}
SAVING = {1: ["optimizer+parameters"], 2: list(MEMORY), 3: ["optimizer", "optimizer+parameters"]}
LR = 1e-3
SAVED_BY = 2
"""Number of ranks that writes the checkpoints which the others take up."""


def run_rank(rank: int, num_ranks: int, port: int, model: str, folder: str, only: Sequence[str] | None = None) -> None:
    """Writes {case: result} to `folder`/{num_ranks}-{rank}.pt; of all cases, or those that `only` names."""
    gc.freeze()  # DeepSpeed collects garbage several times an engine: a quarter of a second each, with all of torch

    def make(algorithm: Algorithm | None = None, **settings: Any) -> Learner:
        values = {"dtype": "float32", "micro_batch_tokens": 128, "lr": LR, "grad_clip": 1e9, **settings}
        return Learner(
            model, LearnerSettings.model_validate(values), algorithm or Algorithm(), 0, num_steps=3,
            rank=rank, world_size=num_ranks, port=port,
        )  # fmt: skip

    cases: dict[str, Callable[[], Any]] = {}
    for dtype, stage in UPDATES[num_ranks]:
        own = {"dtype": dtype, "zero_stage": stage}
        cases[f"update {dtype} {stage}"] = lambda own=own: update(make(**own))
    for dtype, stage in NOT_FINITE[num_ranks]:
        own = {"dtype": dtype, "zero_stage": stage}
        cases[f"not finite {dtype} {stage}"] = lambda own=own: not_finite(make(**own), rank, num_ranks)
    for dtype, stage in GO_ON[num_ranks]:
        own, place = {"dtype": dtype, "zero_stage": stage}, Path(folder, f"saved-{dtype}-{stage}")
        cases[f"go on {dtype} {stage}"] = lambda own=own, place=place: go_on(make, own, place, num_ranks)
    for tokens, stage in PACKINGS:
        own = {"zero_stage": stage, "micro_batch_tokens": tokens}
        cases[f"packing {tokens} {stage}"] = lambda own=own: update(make(**own), STEPS[:1])
    for stage in FEW_AND_SCORE[num_ranks]:
        cases[f"few {stage}"] = lambda stage=stage: update(make(zero_stage=stage), [FEW])
        cases[f"score {stage}"] = lambda stage=stage: score(make(zero_stage=stage))
    for stage in LORA[num_ranks]:
        own = {"zero_stage": stage, "lora_rank": 4, "lora_targets": "q_proj, down_proj"}
        cases[f"lora {stage}"] = lambda own=own: update(make(WITH_KL, **own))
    for stage in PPO[num_ranks]:
        cases[f"ppo {stage}"] = lambda stage=stage: ppo(make(WITH_CRITIC, zero_stage=stage))
    for name in SAVING[num_ranks]:
        cases[f"saving {name}"] = lambda name=name: update(make(**MEMORY[name]), STEPS[:1])
    results: dict[str, Any] = {}
    for name, case in cases.items():
        if only is None or name in only:
            began = time.monotonic()
            results[name] = case()
            if rank == 0:
                print(f"{num_ranks} ranks, {name}: {time.monotonic() - began:.1f} s", flush=True)
    print(f"rank {rank} of {num_ranks}: {time.process_time():.1f} s of processor time", flush=True)
    torch.save(results, Path(folder, f"{num_ranks}-{rank}.pt"))


def update(learner: Learner, steps: list[list[TrajectoryGroup]] = STEPS) -> dict[str, Any]:
    """The gradient of the first step (AdamW's first moment is a tenth of it), the weights after all of `steps`."""
    metrics = [learner.train_step(steps[0], 0)]
    gradient = {name: 10.0 * states["exp_avg"].cpu() for name, states in whole_states(learner._engine)}
    metrics += [learner.train_step(groups, version) for version, groups in enumerate(steps[1:], 1)]
    return {"gradient": gradient, "weights": learner.weights(), "metrics": metrics}


def ppo(learner: Learner) -> dict[str, Any]:
    """The critic's gradient of the first step, the policy's weights and the critic's values after all of them."""
    assert learner._critic is not None
    metrics = [learner.train_step(STEPS[0], 0)]
    states = whole_states(learner._critic._engine)
    gradient = {name: 10.0 * state["exp_avg"].cpu().clone() for name, state in states}
    metrics += [learner.train_step(groups, version) for version, groups in enumerate(STEPS[1:], 1)]
    prompts = [turn.prompt_ids for group in STEPS[0] for one in group.trajectories for turn in one.turns]
    values = learner._critic.values(prompts)
    return {"gradient": gradient, "weights": learner.weights(), "metrics": metrics, "values": values}


def not_finite(learner: Learner, rank: int, num_ranks: int) -> dict[str, Any]:
    """The last rank's gradient is not finite in one step; the step before and after it are sound."""
    learner.train_step(STEPS[0], 0)
    before = learner.weights()
    handle = None
    if rank == num_ranks - 1:
        parameter = learner._policy.get_input_embeddings().weight
        handle = parameter.register_hook(lambda gradient: gradient * float("nan"))
    skipped = learner.train_step(STEPS[1], 1)
    after = learner.weights()
    if handle is not None:
        handle.remove()
    recovered = learner.train_step(STEPS[2], 2)
    return {
        "unchanged": all(torch.equal(before[name], after[name]) for name in before),
        "skipped": skipped,
        "recovered": recovered,
        "weights": learner.weights(),
    }


def go_on(make: Callable[..., Learner], own: dict[str, Any], place: Path, num_ranks: int) -> dict[str, Any]:
    """Saves after two steps and goes on; the others take up what was saved (stage 3 at stage 1), as it does itself."""
    result = {}
    if num_ranks == SAVED_BY:
        undisturbed = make(**own)
        for version in (0, 1):
            undisturbed.train_step(STEPS[version], version)
        undisturbed.save(place)
        metrics = undisturbed.train_step(STEPS[2], 2)
        result = {"undisturbed": undisturbed.weights(), "undisturbed metrics": metrics}
    elif own["zero_stage"] == 3:
        own = {**own, "zero_stage": 1}
    resumed = make(**own)
    resumed.load(place)
    updates = resumed.updates
    metrics = resumed.train_step(STEPS[2], 2)
    return {**result, "resumed": resumed.weights(), "metrics": metrics, "updates": updates}


def score(learner: Learner) -> dict[str, Any]:
    samples, _ = build_samples(STEPS[0], AdvantageSettings())
    scores = learner._minibatches.score(samples)
    assert [len(one) for one in scores] == [len(sample.response_ids) for sample in samples]
    return {"scores": scores}
