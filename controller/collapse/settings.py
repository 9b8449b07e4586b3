"""The configuration section `collapse`: when a run counts as ill, and what is done about it.

Owns: the knobs and their sentences. Called by `controller.config` and everything in this package. Must not know: how
anything is detected or done.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from envs.settings import Section

Action = Literal["notify", "checkpoint", "pause", "rollback", "raise_eta", "raise_kl"]
"""notify: log, and POST to the webhook. checkpoint: save now. pause: save and end, to be resumed by a person.
rollback: go on from the last healthy checkpoint with a lower learning rate. raise_eta: TDS throws more turns away.
raise_kl: a stronger pull to the reference policy."""


class CollapseSettings(Section):
    """The collapse observatory: when a run counts as ill, and what is done about it (docs/collapse.md)."""

    enabled: bool = Field(True, description="Whether the run is watched for a collapse.")
    on_warning: tuple[Action, ...] = Field(("notify",), description="What is done when a warning begins.")
    on_collapse: tuple[Action, ...] = Field(
        ("notify", "checkpoint"), description="What is done when the run counts as collapsed."
    )
    webhook: str = Field(
        "",
        description="URL that notify posts JSON to; empty: T2PO_WEBHOOK, and without that the log only. A URL that "
        "holds a secret belongs into T2PO_WEBHOOK.",
    )
    webhook_timeout_s: float = Field(10.0, gt=0, le=300, description="Longest wait for the webhook, seconds.")
    max_rollbacks: int = Field(2, ge=0, description="Rollbacks in the life of a run; after them rollback does nothing.")
    rollback_lr_factor: float = Field(
        0.5, gt=0, le=1, description="Factor on the learning rate at each rollback, on top of earlier ones."
    )
    eta_factor: float = Field(1.5, ge=1, description="Factor on tds.eta each time that raise_eta acts.")
    eta_max: float = Field(0.5, gt=0, description="Highest eta that raise_eta goes to.")
    kl_coef_step: float = Field(0.01, gt=0, description="What raise_kl adds to loss.kl_coef each time.")
    kl_coef_max: float = Field(0.1, gt=0, description="Highest kl_coef that raise_kl goes to.")
    warmup_steps: int = Field(2, ge=0, description="First steps of a run, in which nothing is judged yet.")
    window: int = Field(20, ge=5, le=1000, description="Steps before the present ones that these are compared with.")
    steps_to_enter: int = Field(2, ge=1, le=100, description="Steps in a row that a detector must see a level.")
    steps_to_leave: int = Field(5, ge=1, le=1000, description="Steps in a row after which a lower level is believed.")
    success_drop: float = Field(
        0.3, gt=0, lt=1, description="Share of the best success (mean of 5 steps) whose loss is a warning."
    )
    entropy_low: float = Field(
        0.25, gt=0, lt=1, description="Share of its first level below which entropy has collapsed, success not gained."
    )
    entropy_high: float = Field(
        1.5, gt=1, description="Multiple of its recent level above which entropy explodes: a warning."
    )
    kl_limit: float = Field(
        0.015, gt=0, description="KL of one update, nats a token, that is too large when it lasts (approx_kl)."
    )
    grad_factor: float = Field(
        5.0, gt=1, description="Multiple of its recent level at which a gradient norm is a spike."
    )
    stalled_factor: float = Field(
        10.0, gt=1, description="Multiple of the usual time of a step after which a run counts as stalled."
    )

    @field_validator("on_warning", "on_collapse")
    @classmethod
    def _once_each(cls, actions: tuple[Action, ...]) -> tuple[Action, ...]:
        if len(set(actions)) != len(actions):
            raise ValueError("names an action twice; name each once")
        return actions

    @field_validator("webhook")
    @classmethod
    def _is_url(cls, url: str) -> str:
        if url and not url.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://, or be empty")
        return url
