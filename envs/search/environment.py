"""Search QA behind the interface of all environments.

Owns: which panels there are, which retriever answers, who plays expert and demonstrator. Called through
`envs.environment`. Must not know: how questions are made or passages found.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from envs.data_folder import DataError, data_folder
from envs.environment import Demonstrated, Environment, PromptStyle, TaskRow, View, Vocabulary
from envs.records import Task
from envs.reply import Reply
from envs.search.client import HttpRetriever
from envs.search.demonstration import Demonstrator
from envs.search.env import SearchEnv
from envs.search.expert import OracleExpert
from envs.search.factbook import PANELS as FACTBOOK_PANELS
from envs.search.official import fetch_search
from envs.search.panels import OFFICIAL_PANELS, PANEL_NAMES, official_file, panel_file, panel_rows, question_of
from envs.search.prompt import render
from envs.search.reply import parse_search_reply
from envs.search.retriever import RetrievalError, Retriever, local_retriever
from envs.settings import EnvSettings, SearchSettings


class Search(Environment):
    """Questions that searches answer: the Factbook suite, and the published sets once they are fetched."""

    panels = PANEL_NAMES
    apart = (FACTBOOK_PANELS, ("official-train", "official-test"))
    forced_queue = "</think>\n"
    markers = ("<think>", "</think>", "<search>", "</search>", "<answer>", "</answer>")
    expert_always_wins = False
    typing_advice = "(`search WORDS`, or the answer)"

    def panel_rows(self, panel: str, data_dir: Path | None = None) -> list[TaskRow]:
        return [TaskRow(*row) for row in panel_rows(panel, data_dir)]

    def panel_files(self, panel: str, data_dir: Path | None = None) -> tuple[Path, ...]:
        return (panel_file(panel, data_dir),)

    def has_data(self, panel: str, data_dir: Path | None = None) -> bool:
        if panel not in OFFICIAL_PANELS:
            return True
        return official_file("train" if panel == "official-train" else "test", data_dir or data_folder()).is_file()

    def make(self, settings: EnvSettings, data_dir: Path | None = None) -> SearchEnv:
        return SearchEnv(
            max_turns=settings.max_turns,
            success_reward=settings.success_reward,
            topk=settings.search.topk,
            retriever=_retriever(settings.search, data_dir),
            on_failure=settings.search.on_failure,
            data_dir=data_dir,
        )

    def render(self, style: PromptStyle, view: View) -> str:
        return render(style, view.goal, view.history, view.observation, view.num_steps)

    def expert(self, task: Task, settings: EnvSettings, data_dir: Path | None = None) -> OracleExpert:
        return OracleExpert(question_of(task, data_dir))

    def demonstrator(self, task: Task, settings: EnvSettings, rng: random.Random, detour_rate: float) -> Demonstrator:
        question = question_of(task)
        if not question.plan:
            raise DataError(
                f"question {question.id} of panel {task.panel} comes without a plan of searches, so nobody can "
                "demonstrate it: set `model` to the folder of a policy that can already play"
            )
        return Demonstrator(question, rng, detour_rate)

    def parse(self, text: str) -> Reply:
        return parse_search_reply(text)

    def write(self, turn: Demonstrated) -> str:
        tag, _, rest = turn.action.partition(">")
        said, _, _ = rest.rpartition("</")
        # a word after a blank is the same token wherever it stands: what was read can be copied
        return f"<think>{turn.thought}</think>\n{tag}> {said} </{tag[1:]}>"

    def allows(self, action: str, info: Mapping[str, Any]) -> bool:
        """Any search and any answer can be taken."""
        return bool(action)

    def typed(self, text: str) -> str:
        word, _, query = text.partition(" ")
        return f"<search>{query}</search>" if word.lower() == "search" and query else f"<answer>{text}</answer>"

    def start_problems(self, settings: EnvSettings) -> list[str]:
        """A server that is not there; or an index that cannot be had. One that is missing is built here, where nobody
        waits for it with a deadline."""
        try:
            if settings.search.retriever == "http":
                _http(settings.search).check()
            else:
                _retriever(settings.search, None)
        except RetrievalError as error:
            return [f"env.search.url = {settings.search.url!r}: {error}"]
        except DataError as error:
            return [f"env.search.corpus = {settings.search.corpus!r}: {error}"]
        return []

    def notes(self, settings: EnvSettings) -> str:
        """Tries that failed and searches that were given up, by cause."""
        if settings.search.retriever != "http":
            return ""
        counts = _http(settings.search).counts()
        return "; ".join(
            f"searches {name.replace('_', ' ')}: "
            + ", ".join(f"{cause} {count}" for cause, count in sorted(by.items()))
            for name, by in counts.items()
            if isinstance(by, dict) and by
        )

    def fetch(self, source: Path, data_dir: Path | None, progress: Callable[[str], None]) -> list[str]:
        return fetch_search(source, data_dir, progress).lines()

    def vocabulary(self) -> Vocabulary:
        return Vocabulary(num_merges=6000, copies="spans")


def _retriever(settings: SearchSettings, data_dir: Path | None) -> Retriever:
    """Where the environments of this process look things up: they share one index, or one set of connections."""
    if settings.retriever == "http":
        return _http(settings)
    return local_retriever(settings.corpus, settings.retriever, data_dir)


@lru_cache(maxsize=8)
def _http(settings: SearchSettings) -> HttpRetriever:
    return HttpRetriever(settings.url, timeout_s=settings.timeout_s, tries=settings.tries, wait_s=settings.wait_s)
