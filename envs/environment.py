"""What t2po needs to know of an environment: one subclass of `Environment` for each kind of task.

Owns: the interface and `find_environment`. Called by every room that meets tasks, prompts or replies. Must not know:
how any environment does it; each is imported when its name is asked for.

To add one of your own, see docs/environments.md: `env.name = "my_module:MyEnvironment"` is all that a recipe needs.
"""

from __future__ import annotations

import importlib
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from envs.data_folder import DataError
from envs.records import Task
from envs.reply import Reply, parse_reply
from envs.settings import EnvSettings
from envs.text_env import TextEnv

PromptStyle = Literal["full", "compact"]
BUILT_IN = {
    "alfworld": "envs.alfworld.environment:Alfworld",
    "search": "envs.search.environment:Search",
    "webshop": "envs.webshop.environment:Webshop",
}


class UnknownEnvironment(DataError):
    """A name that leads to no environment; the message says what names there are."""


class TaskRow(NamedTuple):
    """One task of a panel: `kind` is what results are broken down by, `digest` the hash of what the task contains."""

    id: str
    kind: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a turn's prompt is made from. `history`: the remembered (observation, action) pairs, oldest first;
    `num_steps`: turns taken so far; `info`: the environment's, with `admissible` and whatever else it says."""

    goal: str
    observation: str
    history: Sequence[tuple[str, str]] = ()
    num_steps: int = 0
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def admissible(self) -> Sequence[str]:
        listed: Sequence[str] = self.info.get("admissible", ())
        return listed


class Expert(Protocol):
    """A scripted agent that knows the task: the upper bound of play."""

    def act(self, observation: str, info: Mapping[str, Any]) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstrated:
    """One turn of a demonstration: what is sent to the environment, the thought before it, and the kind of plan behind
    it (`coldstart` thins out frequent kinds, "search" and "hesitate", and leaves "unfounded" out: a turn that does not
    follow from what the policy will see)."""

    action: str
    thought: str
    plan: str


class Demonstrator(Protocol):
    """A scripted agent that decides from what the policy will see, and thinks aloud: what a cold start imitates."""

    def decide(self, observation: str, info: Mapping[str, Any]) -> Demonstrated: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """What the embedded policy's tokenizer should know of an environment's texts.

    `names`: a regular expression of stretches that are one token each (`go to cabinet 2`); `parts`: one that takes such
    a stretch apart into groups, of which `name` is the thing itself: tokens with equal parts begin with alike vectors.
    `words`: bare words that get a token of their own. `num_merges`: merges of the byte-level BPE that spells the rest;
    `max_phrases`: frequent stretches between names that become one token, at most. `copies`: whether what is to be
    copied from a prompt is one token each, or may span several.
    """

    names: str = r"(?!)"
    parts: str = r"(?!)"
    words: tuple[str, ...] = ()
    num_merges: int = 2000
    max_phrases: int = 0
    copies: Literal["tokens", "spans"] = "tokens"


class Environment(ABC):
    """Everything that belongs to one environment, without state: one instance serves a whole process.

    `name` is the name that it was found by, which its tasks carry. `panels` are the names of its panels, those that
    ship with it first; `apart` are sets of panels that must share no task. `forced_queue` is what TTI writes when it
    ends a thought (METHOD section 3), `markers` the tags of a reply. `expert_always_wins`: whether a task that its
    expert does not win is a defect of the data. `typing_advice`: what a person is told who asks for the list of
    actions where any text is one.
    """

    name: str = ""
    panels: tuple[str, ...]
    apart: tuple[tuple[str, ...], ...] = ()
    forced_queue: str = "</think>\n<action>"
    markers: tuple[str, ...] = ("<think>", "</think>", "<action>", "</action>")
    expert_always_wins: bool = True
    typing_advice: str = "(any text is an action)"

    @abstractmethod
    def panel_rows(self, panel: str, data_dir: Path | None = None) -> list[TaskRow]:
        """The tasks of a panel in panel order. `data_dir`: where fetched data lies (null: T2PO_DATA). DataError."""

    def panel_files(self, panel: str, data_dir: Path | None = None) -> tuple[Path, ...] | None:
        """The files (or folders that are replaced as a whole) that the panel's tasks follow from: while they stay as
        they are, it is read once a process. Null (not known): it is read at every load. DataError: one is missing."""
        return None

    @abstractmethod
    def make(self, settings: EnvSettings, data_dir: Path | None = None) -> TextEnv:
        """A fresh environment, which `reset(options={"task": Task})` starts."""

    @abstractmethod
    def render(self, style: PromptStyle, view: View) -> str:
        """The user message of a turn (METHOD section 5)."""

    @abstractmethod
    def expert(self, task: Task, settings: EnvSettings, data_dir: Path | None = None) -> Expert:
        """The upper bound of play, for one task."""

    def demonstrator(self, task: Task, settings: EnvSettings, rng: random.Random, detour_rate: float) -> Demonstrator:
        """Who is imitated in a cold start. `detour_rate`: share of turns in which it hesitates."""
        raise DataError(
            f"environment {self.name} has no demonstrator for a cold start: set `model` to the folder of a policy "
            "that can already play"
        )

    def parse(self, text: str) -> Reply:
        """What a reply asks for. Default: `<think>…</think>` and one `<action>…</action>`."""
        return parse_reply(text)

    def write(self, turn: Demonstrated) -> str:
        """The reply that `parse` reads as this turn."""
        return f"<think>{turn.thought}</think>\n<action>{turn.action}</action>"

    def allows(self, action: str, info: Mapping[str, Any]) -> bool:
        """Whether an action that was asked for in the right format is one that can be taken."""
        return action in info.get("admissible", ())

    def trace(self, task: Task, actions: Iterable[str], data_dir: Path | None = None) -> Iterator[dict[str, Any]]:
        """What the environment says at the reset and after each action (`t2po env trace`); ends when it is over."""
        env = self.make(EnvSettings(name=self.name, max_turns=1000), data_dir)
        observation, info = env.reset(options={"task": task})
        reward, terminated, truncated = 0.0, False, False
        for action in (None, *actions):
            if action is not None:
                observation, reward, terminated, truncated, info = env.step(action)
            done = terminated or truncated
            yield {
                "observation": observation,
                "admissible": list(info.get("admissible", ())),
                "reward": reward,
                "done": done,
            }
            if done:
                return

    def typed(self, text: str) -> str:
        """The action that a person means who types this (`t2po play`)."""
        return text

    def verdict(self, info: Mapping[str, Any]) -> str:
        """What there is to say at the end of a task besides won or not, with a space before it."""
        return ""

    def vocabulary(self) -> Vocabulary:
        """What the embedded policy's tokenizer should know of the texts."""
        return Vocabulary()

    def has_data(self, panel: str, data_dir: Path | None = None) -> bool:
        """Whether the panel's tasks are here: true for all that ship with the project."""
        return True

    def start_problems(self, settings: EnvSettings) -> list[str]:
        """What outside the process stands in the way of playing, each with its remedy: asked once before a run."""
        return []

    def notes(self, settings: EnvSettings) -> str:
        """What there is to say of this process's environments besides trajectories and steps, for the live view."""
        return ""

    def fetch(self, source: Path, data_dir: Path | None, progress: Callable[[str], None]) -> list[str]:
        """Put official data from `source` into the data folder (`t2po data get`); what was found, in words."""
        raise DataError(f"environment {self.name} has no data to fetch: all that it needs ships with it")


class EnvironmentNotReady(DataError):
    """Something outside the process is needed to play and not there; the message names it and the remedy."""


def require_ready(settings: EnvSettings) -> None:
    """What a run asks before it starts anything: raises EnvironmentNotReady when it could not play."""
    if problems := find_environment(settings.name).start_problems(settings):
        raise EnvironmentNotReady("\n".join(problems))


@lru_cache(maxsize=64)
def find_environment(name: str) -> Environment:
    """The environment of this name: a built-in one, or `module:Class` for one of the user's own."""
    target = BUILT_IN.get(name, name)
    module, found, attribute = target.partition(":")
    known = f"use {', '.join(BUILT_IN)}, or module:Class for one of your own"
    if not found or not module or not attribute:
        raise UnknownEnvironment(f"environment {name!r} is unknown: {known}")
    try:
        made = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError, TypeError) as error:
        raise UnknownEnvironment(f"environment {name!r} cannot be loaded ({error}): {known}") from error
    if not isinstance(made, Environment):
        raise UnknownEnvironment(f"environment {name!r} is a {type(made).__name__}, not an Environment")
    made.name = name
    return made
