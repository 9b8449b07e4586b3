"""WebShop as a gymnasium environment.

Owns: reward, the cut after `max_turns`, and what `info` says. Called through the environment's `make`. Must not know:
prompts, replies, how catalogues are stored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from envs.records import Task
from envs.text_env import Info, TextEnv
from envs.webshop.engine import Engine, ObservationMode
from envs.webshop.goals import OFFICIAL_SEED
from envs.webshop.pages import PAGE_SIZE
from envs.webshop.reward import Breakdown
from envs.webshop.tasks import engine_for


class WebshopEnv(TextEnv):
    """One goal at a time. A purchase earns success_reward * ((1 - score_share) * [score = 1] + score_share * score).

    `info`: `admissible` in page order, `goal` (the instruction), `won`, `task_score` (WebShop's own score of the
    purchase in [0, 1], 0 before it) and, at a purchase, `breakdown`.
    """

    def __init__(
        self,
        *,
        max_turns: int = 15,
        success_reward: float = 10.0,
        observation_mode: ObservationMode = "text",
        show_attrs: bool = False,
        page_size: int = PAGE_SIZE,
        score_share: float = 0.0,
        goal_seed: int = OFFICIAL_SEED,
        data_dir: Path | None = None,
    ) -> None:
        self._max_turns = max_turns
        self._success_reward = success_reward
        self._observation_mode = observation_mode
        self._show_attrs = show_attrs
        self._page_size = page_size
        self._score_share = score_share
        self._goal_seed = goal_seed
        self._data_dir = data_dir
        self._engine: Engine | None = None
        self._turns = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, Info]:
        """Start the task in `options["task"]`. The seed plays no part: a task is one goal in one shop."""
        task = (options or {}).get("task")
        if not isinstance(task, Task) or task.env != "webshop":
            raise ValueError(f'reset needs options={{"task": Task}} with a webshop task, got {task!r}')
        engine, goal = engine_for(
            task,
            observation_mode=self._observation_mode,
            show_attrs=self._show_attrs,
            page_size=self._page_size,
            goal_seed=self._goal_seed,
            data_dir=self._data_dir,
        )
        self._engine = engine
        self._turns = 0
        return engine.reset(goal), _info(engine, 0.0, None)

    def step(self, action: str) -> tuple[str, float, bool, bool, Info]:
        """Send one action; text that is none changes nothing and counts as a turn."""
        if self._engine is None:
            raise RuntimeError("step before reset: call reset(options={'task': task}) first")
        observation, score, done = self._engine.step(action)
        self._turns += 1
        truncated = not done and self._turns >= self._max_turns
        info = _info(self._engine, score, self._engine.breakdown)
        earned = (1 - self._score_share) * info["won"] + self._score_share * score
        return observation, self._success_reward * earned, done, truncated, info


def _info(engine: Engine, score: float, breakdown: Breakdown | None) -> Info:
    info: Info = {
        "admissible": engine.admissible(),
        "goal": engine.goal.text,
        "won": score == 1.0,
        "task_score": score,
    }
    return info if breakdown is None else info | {"breakdown": breakdown}
