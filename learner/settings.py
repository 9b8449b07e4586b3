"""Configuration sections of the learner: advantages, losses, the update, the engine, the cold start.

Owns: their knobs and the checks inside one section. Called by `controller.config`, which checks across
sections. Must not know: the actors' settings.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from envs.settings import Section


class AdvantageSettings(Section):
    """How much better than expected a turn went (METHOD section 5)."""

    estimator: str = Field(
        "gigpo",
        description="Estimator: gigpo, grpo, dr_grpo, rloo, reinforce, reinforce_mean, gae (needs a critic), or "
        "module:function for one of your own.",
    )
    gamma: float = Field(0.95, ge=0, le=1, description="Discount from turn to turn, in GiGPO's step part and in GAE.")
    gae_lambda: float = Field(
        0.95, ge=0, le=1, description="GAE: 0 trusts the critic after one turn, 1 only the rewards that came."
    )
    step_weight: float = Field(1.0, ge=0, description="GiGPO: weight ω of the step part beside the episode part.")
    normalise: Literal["mean_norm", "mean_std_norm"] = Field(
        "mean_norm", description="GRPO and GiGPO: F is 1, or the standard deviation of the group or cluster."
    )
    group_mean: Literal["per_turn", "per_trajectory"] = Field(
        "per_trajectory",
        description="Whether long trajectories weigh more in the group's mean (the public code's way).",
    )
    anchor_similarity: float = Field(
        1.0, gt=0, le=1, description="Turns whose observations are this alike began in one state; 1 is equality."
    )
    invalid_penalty: float = Field(0.1, ge=0, description="Taken from the return of a turn whose reply is invalid.")
    whiten: bool = Field(
        False, description="Whether a step's advantages are brought to mean 0 and standard deviation 1 over its turns."
    )
    keep_groups: Literal["all", "mixed_success", "different_returns"] = Field(
        "all",
        description="Groups that are trained on: all, those with both wins and losses (DAPO, SAMPO), or those whose "
        "total rewards differ.",
    )
    refill: int = Field(
        1,
        ge=1,
        description="Where keep_groups leaves groups out: up to so many times rollout.groups_per_step are played for a "
        "step, until it has groups_per_step that are kept (DAPO's dynamic sampling). 1: they are not replaced.",
    )

    @field_validator("estimator")
    @classmethod
    def _known_estimator(cls, name: str) -> str:
        from learner.advantages.registry import check_estimator  # it needs these settings

        return check_estimator(name)


class LossSettings(Section):
    """The policy loss: ratio, clipping, KL to the reference policy, entropy, and how tokens are weighed."""

    policy: str = Field(
        "token_ratio",
        description="Loss: token_ratio (PPO), sequence_ratio (GSPO, SAMPO), unclipped (REINFORCE), or "
        "module:function for one of your own.",
    )
    clip_low: float = Field(0.2, gt=0, lt=1, description="Lower ratio clip: ratio ≥ 1 - this.")
    clip_high: float = Field(0.2, gt=0, description="Upper ratio clip: ratio ≤ 1 + this.")
    dual_clip: float = Field(3.0, ge=0, description="Bound on the ratio for negative advantages, above 1; 0 is off.")
    kl_coef: float = Field(0.0, ge=0, description="Weight of the KL to the reference policy; 0 is off.")
    kl_estimator: Literal["k1", "k2", "k3", "low_var_kl"] = Field(
        "low_var_kl",
        description="Estimate of that KL, a token: in the loss k1, k2 and k3 have the gradient of "
        "KL(policy || reference), low_var_kl is k3 as published for GRPO, with k3's own.",
    )
    kl_in: Literal["loss", "reward"] = Field(
        "loss",
        description="Whether the KL is added to the loss, or taken from each turn's reward, summed over its tokens.",
    )
    entropy_coef: float = Field(0.0, ge=0, description="Weight of the entropy bonus.")
    aggregation: Literal["token_mean", "sequence_mean", "constant", "trajectory_mean"] = Field(
        "token_mean",
        description="What weighs the same in a minibatch: each token, each turn, each token by a constant (turns x "
        "inference.response_tokens), or each trajectory.",
    )

    @field_validator("policy")
    @classmethod
    def _known_loss(cls, name: str) -> str:
        from learner.losses.registry import check_loss

        return check_loss(name)

    @field_validator("dual_clip")
    @classmethod
    def _above_one(cls, bound: float) -> float:
        if 0 < bound <= 1:
            raise ValueError("must be above 1, or 0 for no bound: a bound of 1 or less would act on every token")
        return bound


class CorrectionSettings(Section):
    """Correction for samples from another policy than the one that is trained: older weights, another engine.

    Importance weights are those of the proximal policy over the behaviour policy, of one sampled token or of all of a
    turn together; forced tokens have none.
    """

    proximal: Literal["behaviour", "recomputed"] = Field(
        "behaviour",
        description="Policy that the clipped ratio starts from: the one that sampled, or the learner's at the start of "
        "the step (decoupled PPO: one more forward pass).",
    )
    weight: Literal["off", "token", "sequence"] = Field(
        "off", description="Importance weight on the loss: none, of each token, or of the whole turn."
    )
    weight_max: float = Field(2.0, gt=0, description="Weights are cut off here (truncated importance sampling).")
    mask: Literal["off", "token", "sequence", "geometric"] = Field(
        "off",
        description="What is left out when its weight is out of bounds: nothing, the token, the turn by its whole "
        "weight, or the turn by the geometric mean of its tokens' weights.",
    )
    mask_low: float = Field(0.5, ge=0, description="Weights below this are out of bounds.")
    mask_high: float = Field(2.0, gt=0, description="Weights above this are out of bounds.")

    @model_validator(mode="after")
    def _bounds(self) -> CorrectionSettings:
        if not self.mask_low < self.mask_high:
            raise ValueError(f"mask_low = {self.mask_low}: must be below mask_high = {self.mask_high}")
        if self.proximal == "behaviour" and self.weight != "off":
            raise ValueError(
                f'weight = "{self.weight}": with proximal = "behaviour" the clipped ratio is the importance weight '
                'already; set weight = "off", or proximal = "recomputed"'
            )
        return self


class CriticSettings(Section):
    """The critic of PPO: one value a turn, that of its prompt. There is one when the estimator needs values (gae)."""

    lr: float = Field(1e-5, gt=0, lt=1, description="Peak learning rate of the critic's AdamW.")
    weight_decay: float = Field(0.01, ge=0, description="The critic's weight decay.")
    grad_clip: float = Field(1.0, gt=0, description="Largest global gradient norm of the critic.")
    value_clip: float = Field(
        0.5,
        ge=0,
        description="Farthest that a value may move in a step before its loss is flat, in units of reward; 0 is off.",
    )
    epochs: int = Field(1, ge=1, description="The critic's passes over a step's turns.")
    warmup_steps: int = Field(0, ge=0, description="Steps that train the critic alone, before the policy is trained.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """What the learner makes of a step's groups. `max_response_tokens`: the budget of a reply, for loss.aggregation =
    "constant". `filter_void_turns`: whether trajectories with a turn without an action are left out."""

    advantage: AdvantageSettings = field(default_factory=AdvantageSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    correction: CorrectionSettings = field(default_factory=CorrectionSettings)
    critic: CriticSettings = field(default_factory=CriticSettings)
    max_response_tokens: int = 0
    filter_void_turns: bool = False


class LearnerSettings(Section):
    """The DeepSpeed learner."""

    lr: float = Field(1e-4, gt=0, lt=1, description="Peak learning rate of AdamW.")
    lr_warmup_steps: int = Field(2, ge=0, description="Updates of linear warm-up.")
    lr_schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant",
        description="How the learning rate comes down over the run's steps, the warm-up aside; a run that is resumed "
        "with other steps follows their new number.",
    )
    lr_min_ratio: float = Field(
        0.1, ge=0, le=1, description="Learning rate at the last step, as a share of the peak; constant leaves it at 1."
    )
    weight_decay: float = Field(0.01, ge=0, description="AdamW's weight decay.")
    grad_clip: float = Field(1.0, gt=0, description="Largest global gradient norm.")
    epochs: int = Field(1, ge=1, description="Passes over a step's samples.")
    minibatches: int = Field(1, ge=1, description="Optimizer updates a pass is split into.")
    micro_batch_tokens: int = Field(8192, ge=64, description="Tokens of one forward and backward pass.")
    dtype: Literal["float32", "bfloat16"] = Field(
        "bfloat16", description="Number format of the forward and backward pass."
    )
    num_ranks: int = Field(
        1, ge=1, le=512, description="Processes that share each minibatch: one GPU each, or on a CPU num_threads."
    )
    num_threads: int = Field(1, ge=1, description="CPU threads of one learner rank.")
    device: Literal["auto", "cpu", "gpu"] = Field(
        "auto", description="Where ranks run; auto: on GPUs when there is one for each rank."
    )
    zero_stage: Literal[0, 1, 2, 3] = Field(
        0,
        description="DeepSpeed ZeRO stage: split over the ranks are, from 1 on optimizer states, from 2 on gradients "
        "too, at 3 weights too. In bfloat16 0 means 1.",
    )
    offload: Literal["none", "optimizer", "optimizer+parameters"] = Field(
        "none",
        description="What waits in host memory while a GPU does not need it; the optimizer then runs on the CPU. "
        "Optimizer states need zero_stage 1 or more, parameters 3.",
    )
    activation_checkpointing: bool = Field(
        False, description="Whether a layer's activations are computed again in the backward pass instead of kept."
    )
    lora_rank: int = Field(0, ge=0, description="Rank of the LoRA matrices that are trained; 0 trains all weights.")
    lora_alpha: int = Field(0, ge=0, description="LoRA's scale is this / lora_rank; 0 stands for 2 x lora_rank.")
    lora_targets: str = Field(
        "all",
        min_length=1,
        description='Linear layers that get LoRA matrices, by the last part of their names, with commas; "all" is '
        "every one but the output head.",
    )
    step_timeout_s: float = Field(900.0, gt=0, description="Longest wait for one optimizer step, seconds.")

    @field_validator("offload")
    @classmethod
    def _is_split(cls, offload: str, info: ValidationInfo) -> str:
        """DeepSpeed moves only what it splits."""
        least, stage = {"none": 0, "optimizer": 1, "optimizer+parameters": 3}[offload], info.data.get("zero_stage", 3)
        if stage < least:
            raise ValueError(f"needs learner.zero_stage = {least} or more, it is {stage}")
        return offload


class ColdstartSettings(Section):
    """Supervised fine-tuning before RL, on the prompts that RL uses: on an expert's or the policy's own successes."""

    source: Literal["expert", "policy"] = Field(
        "expert",
        description="Who demonstrates: a scripted agent, or the policy itself, of whose trajectories the successes are "
        "kept (rejection fine-tuning).",
    )
    num_trajectories: int = Field(
        1500, ge=1, description="Trajectories collected on training tasks; of the policy's own, before any is rejected."
    )
    samples_per_task: int = Field(4, ge=1, description="Source policy: trajectories of each task that is played.")
    min_score: float = Field(
        0.9,
        ge=0,
        lt=1,
        description="Source policy: a trajectory is kept when its score is above this; a win of an environment without "
        "scores has 1, a loss 0.",
    )
    max_per_task: int = Field(
        2, ge=1, description="Source policy: most trajectories kept of one task, so that easy tasks do not dominate."
    )
    detour_rate: float = Field(
        0.3, ge=0, le=1, description="Share of demonstrated turns that hesitate instead of advancing."
    )
    kept_searches: float = Field(
        0.4, gt=0, le=1, description="Share of demonstrated searching turns that is trained on."
    )
    kept_detours: float = Field(
        0.3, gt=0, le=1, description="Share of demonstrated hesitating turns that is trained on."
    )
    prompt_loss_weight: float = Field(
        0.2, ge=0, le=1, description="Weight of a prompt token's loss beside a reply token's."
    )
    epochs: int = Field(4, ge=1, description="Passes over the demonstrations.")
    lr: float = Field(2e-3, gt=0, lt=1, description="Peak learning rate.")
    batch_tokens: int = Field(8192, ge=64, description="Tokens of one optimizer step.")
    max_duration_s: float = Field(420.0, gt=0, description="Training is stopped after this long, seconds.")
    save_every_s: float = Field(
        60.0, ge=0, description="Seconds of training between snapshots that a killed cold start goes on from."
    )
    evaluate: bool = Field(
        True, description="Whether `t2po coldstart` plays the evaluation panel before and after; a run always does."
    )
    num_ranks: int = Field(
        1, ge=1, le=64, description="Processes that share each batch; on a CPU two with one thread beat one with two."
    )
    num_threads: int = Field(1, ge=1, description="CPU threads of one rank.")
