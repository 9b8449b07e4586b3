"""Search QA as a gymnasium environment: a question, some searches, an answer.

Owns: what a search shows, reward, the end of an episode, what `info` says. Called by the environment actors and
evaluation through `envs.text_env`. Must not know: prompts, replies' thoughts, which retriever answers.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

from envs.records import Task
from envs.search.corpus import Passage
from envs.search.panels import question_of
from envs.search.question import Question
from envs.search.retriever import RetrievalError, Retriever, local_retriever
from envs.search.scoring import exact_match, given_answer
from envs.text_env import Info, TextEnv

LONGEST_QUERY = 2_000
"""Characters of a query that are searched for; what follows is cut off. No honest query is near it."""

_OPENS = re.compile(r"<search>", re.IGNORECASE | re.ASCII)
_CLOSES = re.compile(r"</search>", re.IGNORECASE | re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]+")


class SearchEnv(TextEnv):
    """One question at a time. `success_reward` at the end of an episode whose answer matches, 0 otherwise.

    An action is `<search>query</search>` or `<answer>text</answer>`; any other text is a turn that shows nothing. The
    episode ends with an answer, or after `max_turns`: the last turn's search is not carried out. Only the actions are
    scored: what a document says is never an answer. `info`: `admissible` (always empty), `goal` (the question), `won`,
    `data_source`.
    """

    def __init__(
        self,
        *,
        max_turns: int = 4,
        success_reward: float = 1.0,
        topk: int = 3,
        retriever: Retriever | None = None,
        on_failure: Literal["raise", "text"] = "raise",
        data_dir: Path | None = None,
    ) -> None:
        """`retriever`: null, the one of this process over the Factbook, opened at the first search. `on_failure`: what
        becomes of a search whose service is lost: RetrievalError, or a text that says so to the agent (then the same
        actions need not lead to the same observations)."""
        if max_turns < 1 or topk < 1:
            raise ValueError(f"max_turns {max_turns} and topk {topk} must be at least 1")
        if on_failure not in ("raise", "text"):
            raise ValueError(f"on_failure {on_failure!r} must be raise or text")
        self._max_turns = max_turns
        self._success_reward = success_reward
        self._topk = topk
        self._retriever = retriever
        self._on_failure = on_failure
        self._data_dir = data_dir
        self._question: Question | None = None
        self._turns = 0
        self._won = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, Info]:
        """Start the task in `options["task"]`; the observation is its question. The seed plays no part."""
        task = (options or {}).get("task")
        if not isinstance(task, Task) or task.env != "search":
            raise ValueError(f'reset needs options={{"task": Task}} with a search task, got {task!r}')
        self._question = question_of(task, self._data_dir)
        self._turns = 0
        self._won = False
        return self._question.question, self._info(self._question)

    def step(self, action: str) -> tuple[str, float, bool, bool, Info]:
        """Search or answer. Raises RetrievalError when the search service is lost; no text is an error."""
        question = self._question
        if question is None:
            raise RuntimeError("step before reset: call reset(options={'task': task}) first")
        self._turns += 1
        answer = given_answer([action])
        truncated = answer is None and self._turns >= self._max_turns
        if answer is not None:
            self._won = exact_match(answer, question.answers)
        if answer is not None or truncated:
            reward = self._success_reward if self._won else 0.0
            return "", reward, answer is not None, truncated, self._info(question)
        query = _query(action)
        observation = "" if query is None else f"<information>{self._look_up(query)}</information>"
        return observation, 0.0, False, False, self._info(question)

    def _look_up(self, query: str) -> str:
        if self._retriever is None:
            self._retriever = local_retriever(data_dir=self._data_dir)
        plain = " ".join(_CONTROL.sub(" ", query[:LONGEST_QUERY]).split())
        try:
            return tool_output(self._retriever.search(plain, self._topk) if plain else [])
        except RetrievalError:
            if self._on_failure == "raise":
                raise
            return error_output("the search service does not answer")

    def _info(self, question: Question) -> Info:
        return {"admissible": [], "goal": question.question, "won": self._won, "data_source": question.data_source}


def _query(action: str) -> str | None:
    """What the first search block of an action asks for; None without one."""
    opens = _OPENS.search(action)
    closes = _CLOSES.search(action, opens.end()) if opens else None
    return action[opens.end() : closes.start()] if opens and closes else None


def tool_output(passages: list[Passage]) -> str:
    """What a search says, as JSON: line breaks and letters outside ASCII are escaped."""
    if not passages:
        return json.dumps({"result": "No search results found."})
    listed = "".join(f"Doc {number}: {passage.contents}\n" for number, passage in enumerate(passages, 1))
    return json.dumps({"result": listed})


def error_output(cause: str) -> str:
    """What a search says that could not be carried out."""
    return json.dumps({"result": f"Search error: {cause}"})


def shown_text(observation: str) -> str:
    """The plain text inside an observation: the documents, or what the search said instead. "" without one."""
    body = observation.strip().removeprefix("<information>").removesuffix("</information>")
    try:
        told = json.loads(body)
    except ValueError:
        return ""
    result = told.get("result", "") if isinstance(told, dict) else ""
    return result if isinstance(result, str) else ""
