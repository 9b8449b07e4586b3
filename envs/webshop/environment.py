"""WebShop behind the interface of all environments.

Owns: which panels there are, and who plays expert and demonstrator. Called through `envs.environment`. Must not know:
how the shop works or is stored.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from envs.environment import Environment, PromptStyle, TaskRow, View, Vocabulary
from envs.records import Task
from envs.settings import EnvSettings
from envs.webshop.demonstration import Demonstrator
from envs.webshop.env import WebshopEnv
from envs.webshop.expert import ShoppingExpert
from envs.webshop.official import fetch_webshop
from envs.webshop.prompt import render
from envs.webshop.tasks import APART, PANEL_NAMES, engine_for, goal_of, has_data, panel_file, panel_rows
from envs.webshop.trace import trace_episode


class Webshop(Environment):
    """Shopping by instruction: an own catalogue, and the official ones once they are fetched."""

    panels = PANEL_NAMES
    apart = APART
    typing_advice = "(search[words])"

    def panel_rows(self, panel: str, data_dir: Path | None = None) -> list[TaskRow]:
        return panel_rows(panel, data_dir)

    def panel_files(self, panel: str, data_dir: Path | None = None) -> tuple[Path, ...]:
        return (panel_file(panel, data_dir),)

    def has_data(self, panel: str, data_dir: Path | None = None) -> bool:
        return has_data(panel, data_dir)

    def make(self, settings: EnvSettings, data_dir: Path | None = None) -> WebshopEnv:
        return WebshopEnv(
            max_turns=settings.max_turns,
            success_reward=settings.success_reward,
            observation_mode=settings.webshop.observation,
            show_attrs=settings.webshop.show_attributes,
            page_size=settings.webshop.results_per_page,
            score_share=settings.webshop.score_share,
            data_dir=data_dir,
        )

    def render(self, style: PromptStyle, view: View) -> str:
        return render(style, view)

    def expert(self, task: Task, settings: EnvSettings, data_dir: Path | None = None) -> ShoppingExpert:
        return ShoppingExpert(*goal_of(task, data_dir=data_dir))

    def demonstrator(self, task: Task, settings: EnvSettings, rng: random.Random, detour_rate: float) -> Demonstrator:
        return Demonstrator(rng, detour_rate)

    def allows(self, action: str, info: Mapping[str, Any]) -> bool:
        """As published: any action in the right format is one; the shop does nothing about words that mean nothing."""
        return True

    def trace(self, task: Task, actions: Iterable[str], data_dir: Path | None = None) -> Iterator[dict[str, Any]]:
        """As of a goal of official files: the original's clickables and its score; actions after a purchase count."""
        return trace_episode(*engine_for(task, data_dir=data_dir), actions)

    def verdict(self, info: Mapping[str, Any]) -> str:
        return f" Score {info['task_score']:.3f}." + "".join(
            f"\n  {name}: {value}" for name, value in info.get("breakdown", {}).items()
        )

    def fetch(self, source: Path, data_dir: Path | None, progress: Callable[[str], None]) -> list[str]:
        return fetch_webshop(source, data_dir, progress).lines()

    def vocabulary(self) -> Vocabulary:
        """A click is one token, so that clicking is copying; its vector begins as that of the words on the button."""
        return Vocabulary(
            names=r"click\[[^\]\n]{1,60}\]",
            parts=r"(?P<verb>click)\[(?P<name>[^\]]+)\]",
            num_merges=3000,
            copies="spans",
        )
