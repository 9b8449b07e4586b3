"""The base of every configuration section, and the environments' own section.

Owns: `Section` (frozen, unknown keys rejected), `EnvSettings` and what single environments add to it. Called by the
sections of the other rooms and by `controller.config`. Must not know: where the values come from.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Section(BaseModel):
    """A frozen configuration section. Unknown keys and non-finite numbers are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class WebshopSettings(Section):
    """WebShop: what its pages show."""

    observation: Literal["text", "text_rich"] = Field(
        "text", description="The original's observation mode: texts in a row, or one a line with its buttons marked."
    )
    show_attributes: bool = Field(False, description="Whether an item's page offers its attributes (original: no).")
    results_per_page: int = Field(10, ge=1, le=50, description="Products on a page of results (original: 10).")
    score_share: float = Field(
        0.0, ge=0, le=1, description="Share of success_reward that a purchase earns by its score (original: 0)."
    )


class SearchSettings(Section):
    """Search QA: where passages come from."""

    retriever: Literal["bm25", "dense", "http"] = Field(
        "bm25",
        description='Index in the environment actor ("bm25", "dense"), or a server at `env.search.url` ("http").',
    )
    corpus: str = Field(
        "factbook", description="Passages of an index in the actor: factbook, or a corpus that `t2po data get` stored."
    )
    url: str = Field("http://127.0.0.1:8000", description="Retrieval server (`t2po serve search`).")
    topk: int = Field(3, ge=1, le=100, description="Passages that answer one search.")
    timeout_s: float = Field(5.0, gt=0, description="Longest wait for one answer of the server, seconds.")
    tries: int = Field(3, ge=1, le=100, description="Tries at a search before it fails.")
    wait_s: float = Field(1.0, ge=0, description="Wait before the second try, seconds; each further one is longer.")
    on_failure: Literal["raise", "text"] = Field(
        "raise", description='A search that failed for good: "raise" repeats the trajectory, "text" tells the policy.'
    )

    @property
    def longest_s(self) -> float:
        """Longest time that one search can take, seconds: all tries and the waits between them."""
        return self.tries * self.timeout_s + self.wait_s * self.tries * (self.tries - 1) / 2


class EnvSettings(Section):
    """Which environment is played, on which panels, and how it is put into words."""

    name: str = Field(
        "alfworld", description="Environment: alfworld, webshop, search, or module:Class for one of your own."
    )
    train_panel: str = Field("train", description="Panel that training tasks are taken from.")
    eval_panel: str = Field("unseen", description="Panel that evaluation runs on; disjoint from the training panel.")
    max_turns: int = Field(15, ge=1, le=1000, description="Turns after which a trajectory is cut off.")
    memory: int = Field(2, ge=0, le=100, description="Past (observation, action) pairs shown in the prompt (P).")
    prompt: Literal["full", "compact"] = Field(
        "compact", description="Wording of the user message: the published one, or a short one for tiny models."
    )
    max_observation_chars: int = Field(
        100_000, ge=100, description="Longest observation, characters; the middle of a longer one is left out, counted."
    )
    success_reward: float = Field(10.0, gt=0, description="Reward of the turn that reaches the goal.")
    webshop: WebshopSettings = WebshopSettings()
    search: SearchSettings = SearchSettings()
    options: str = Field("", description="Text that is handed to an environment of your own.")

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        from envs.environment import find_environment  # it imports this module

        find_environment(name)
        return name
