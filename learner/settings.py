"""Configuration sections of the learner: the update, the engine, the cold start.

Owns: their knobs and the checks inside one section. Called by `controller.config`, which checks across
sections. Must not know: the actors' settings.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from envs.settings import Section


class AdvantageSettings(Section):
    """GiGPO advantages (METHOD section 5)."""

    algorithm: Literal["gigpo"] = Field("gigpo", description="How advantages are estimated from a group.")
    gamma: float = Field(0.95, ge=0, le=1, description="Discount from turn to turn in the step part.")
    step_weight: float = Field(1.0, ge=0, description="Weight ω of the step part beside the episode part.")
    normalise: Literal["mean_norm", "mean_std_norm"] = Field(
        "mean_norm", description="F: 1, or the standard deviation of the group or cluster."
    )
    group_mean: Literal["per_turn", "per_trajectory"] = Field(
        "per_trajectory",
        description="Whether long trajectories weigh more in the group's mean (the public code's way).",
    )
    anchor_similarity: float = Field(
        1.0, gt=0, le=1, description="Turns whose observations are this alike began in one state; 1 is equality."
    )
    invalid_penalty: float = Field(0.1, ge=0, description="Taken from the return of a turn whose reply is invalid.")


class LearnerSettings(Section):
    """The DeepSpeed learner."""

    lr: float = Field(1e-4, gt=0, lt=1, description="Peak learning rate of AdamW.")
    lr_warmup_steps: int = Field(2, ge=0, description="Steps of linear warm-up.")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's weight decay.")
    grad_clip: float = Field(1.0, gt=0, description="Largest global gradient norm.")
    clip_low: float = Field(0.2, gt=0, lt=1, description="Lower ratio clip: ratio ≥ 1 - this.")
    clip_high: float = Field(0.2, gt=0, description="Upper ratio clip: ratio ≤ 1 + this.")
    dual_clip: float = Field(3.0, gt=1, description="Bound on the ratio for negative advantages.")
    kl_coef: float = Field(
        0.0, ge=0, description="Weight of the KL to the reference policy (k3) in the loss; 0 is off."
    )
    entropy_coef: float = Field(0.0, ge=0, description="Weight of the entropy bonus.")
    epochs: int = Field(1, ge=1, description="Passes over a step's samples.")
    minibatches: int = Field(1, ge=1, description="Optimizer updates a pass is split into.")
    micro_batch_tokens: int = Field(8192, ge=64, description="Tokens of one forward and backward pass.")
    dtype: Literal["float32", "bfloat16"] = Field(
        "bfloat16", description="Number format of the forward and backward pass."
    )
    num_threads: int = Field(1, ge=1, description="CPU threads of one learner rank.")
    zero_stage: Literal[0, 1, 2, 3] = Field(0, description="DeepSpeed ZeRO stage.")
    step_timeout_s: float = Field(900.0, gt=0, description="Longest wait for one optimizer step, seconds.")


class ColdstartSettings(Section):
    """Supervised fine-tuning on expert trajectories before RL, on the prompts that RL uses."""

    num_trajectories: int = Field(1500, ge=1, description="Demonstrations collected on training tasks.")
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
    num_ranks: int = Field(
        1, ge=1, le=64, description="Processes that share each batch; on a CPU two with one thread beat one with two."
    )
    num_threads: int = Field(1, ge=1, description="CPU threads of one rank.")
