"""The base of every configuration section, and the environments' own section.

Owns: `Section` (frozen, unknown keys rejected) and `EnvSettings`. Called by the sections of the other
rooms and by `controller.config`. Must not know: where the values come from.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A frozen configuration section. Unknown keys and non-finite numbers are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class EnvSettings(Section):
    """Which environment is played, on which panels, and how it is put into words."""

    name: Literal["alfworld"] = Field("alfworld", description="Environment that the agent acts in.")
    train_panel: str = Field("train", description="Panel that training tasks are taken from.")
    eval_panel: str = Field("unseen", description="Panel that evaluation runs on; disjoint from the training panel.")
    max_turns: int = Field(15, ge=1, le=1000, description="Turns after which a trajectory is cut off.")
    memory: int = Field(2, ge=0, le=100, description="Past (observation, action) pairs shown in the prompt (P).")
    prompt: Literal["full", "compact"] = Field(
        "compact", description="Wording of the user message: the published one, or a short one for tiny models."
    )
    success_reward: float = Field(10.0, gt=0, description="Reward of the turn that reaches the goal.")
