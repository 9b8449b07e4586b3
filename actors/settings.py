"""Configuration sections of the rollout side: sampling, TTI, TDS, inference servers, environment actors.

Owns: their knobs and the checks inside one section. Called by `controller.config`, which checks across
sections. Must not know: the learner's settings.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from envs.settings import Section

Signal = Literal["paper", "release", "entropy", "confidence"]
TTIVariant = Literal["paper", "budget", "off"]
TDSVariant = Literal["paper", "void_turn", "off"]

MARK_TOKENS = 4
"""Tokens that `<think>` and the forced `</think>`, newline, `<action>` take at least; most tokenizers need more."""


class TTISettings(Section):
    """Token-level thinking intervention: ends a thought whose information gain has saturated (METHOD section 3)."""

    enabled: bool = Field(True, description='Whether thoughts are ended inside the engine; false is variant = "off".')
    variant: TTIVariant = Field(
        "paper",
        description='What ends a thought: "paper" uncertainty or the cap, "budget" the cap alone, "off" nothing. '
        "`tti=budget` is short for it.",
    )
    signal: Signal = Field(
        "paper",
        description='M, which TDS uses too: "paper"; "entropy" or "confidence", its parts alone; "release", the '
        "authors' code's, with its own constants (alpha, window and epsilon are not used).",
    )
    think_cap: int = Field(40, ge=1, description="Hard cap on thinking tokens (L_max), tokens.")
    min_tokens: int = Field(6, ge=1, description="Thinking tokens before which it never fires (L_min), tokens.")
    window: int = Field(3, ge=1, le=1000, description="N: the mean is over the last N+1 values of |ΔM|.")
    epsilon: float = Field(0.05, ge=0, description="Fires when the window mean of |ΔM| is below this.")
    alpha: float = Field(0.4, ge=0, le=1, description="Weight of the entropy part of M; the rest is confidence.")
    top_j: int = Field(20, ge=1, le=1000, description="Most likely tokens that the confidence averages over (j).")

    @property
    def acts(self) -> TTIVariant:
        """The variant, switched off or not."""
        return self.variant if self.enabled else "off"


class TDSSettings(Section):
    """Turn-level dynamical sampling: throws stalled turns away and samples again (METHOD section 4)."""

    enabled: bool = Field(True, description='Whether stalled turns are sampled again; false is variant = "off".')
    variant: TDSVariant = Field(
        "paper",
        description='What is done about stalled turns: "paper" samples them again; "void_turn" samples nothing again '
        'but does not train trajectories with a turn that holds no action; "off" nothing. `tds=off` is short for it.',
    )
    eta: float = Field(
        0.05, ge=0, le=1, description="A turn is stalled when |Φ - Φ of the turn before| is below this (η)."
    )
    max_candidates: int = Field(2, ge=1, le=64, description="Candidates drawn for a turn at most (B_max).")

    @property
    def acts(self) -> TDSVariant:
        """The variant, switched off or not."""
        return self.variant if self.enabled else "off"


class InferenceSettings(Section):
    """The vLLM inference servers."""

    num_servers: int = Field(1, ge=1, description="Inference actors, each with an engine of its own.")
    response_tokens: int = Field(64, ge=4, description="Longest reply, tokens.")
    prompt_tokens: int = Field(
        448, ge=16, description="Longest prompt, tokens; a longer one is cut at the oldest history."
    )
    max_num_seqs: int = Field(64, ge=1, description="Requests that one engine decodes at once.")
    prefix_caching: bool = Field(
        True,
        description="Whether beginnings that prompts share are computed once. Off, and with max_num_seqs = 1, the last "
        "bits of a reply do not depend on what else is asked.",
    )
    dtype: Literal["float32", "bfloat16"] = Field("bfloat16", description="Number format of the engine's weights.")
    kv_cache_gib: float = Field(1.0, gt=0, description="Memory for the engine's KV cache on a CPU, GiB.")
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1, description="Share of GPU memory that the engine may take.")
    start_timeout_s: float = Field(300.0, gt=0, description="Longest wait for an engine to start, seconds.")
    request_timeout_s: float = Field(120.0, gt=0, description="Longest wait for one reply, seconds.")
    update_timeout_s: float = Field(120.0, gt=0, description="Longest wait for a weight update, seconds.")
    weight_transfer: Literal["auto", "object_store", "nccl"] = Field(
        "auto",
        description='How new weights come from the learner: "nccl" GPU to GPU, "object_store" through host memory; '
        '"auto" is nccl where learner and engines have a GPU each.',
    )
    metrics_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="Port of the first engine's own metrics (vllm:*) on loopback, each further one has the next; "
        "0 is off.",
    )
    verify_every: int = Field(
        20, ge=0, description="Weight updates between two whose checksums are compared, the first one too; 0 is never."
    )


class RolloutSettings(Section):
    """How many trajectories are made, and how."""

    groups_per_step: int = Field(8, ge=1, description="Tasks whose groups make one optimizer step.")
    group_size: int = Field(8, ge=1, description="Sibling trajectories of a task (G).")
    max_staleness: int = Field(
        1, ge=0, le=64, description="Optimizer steps a group may be behind when trained; 0 is on-policy."
    )
    num_env_actors: int = Field(1, ge=1, description="Environment actors (processes), each with many environments.")
    num_routers: int = Field(
        1,
        ge=1,
        le=64,
        description="Routers (processes); each group's turns pass through one of them. One is enough "
        "for some 500 turns per second (docs/scale.md).",
    )
    env_step_timeout_s: float = Field(30.0, gt=0, description="Longest wait for one environment step, seconds.")
    trajectory_timeout_s: float = Field(600.0, gt=0, description="Longest wait for one trajectory, seconds.")
    max_attempts: int = Field(3, ge=1, description="Attempts at a trajectory before its failure ends the run.")
