"""The oracle: it knows the ideal searches of a question and its answer, and answers only with what it has found.

Owns: `OracleExpert` and `tells`, whether a text tells an answer. Called through `envs.search.environment` and by
`reach`: the upper bound of what searching can earn. Must not know: retrieval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from envs.search.env import shown_text
from envs.search.question import Hop, Question
from envs.search.reply import answer_action, search_action
from envs.search.scoring import normal_form

NOT_FOUND = "not found"


class OracleExpert:
    """Plays one question: a search a hop (without a plan: the question itself), then the gold answer, if what the plan
    had to find was found; an answer that is wrong otherwise."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._hops = question.plan or (Hop(question.question, question.answers[0]),)
        self._turn = 0
        self._found = True

    def act(self, observation: str, info: Mapping[str, Any]) -> str:
        """The next action. `observation`: the question at first, then what the last search gave."""
        if self._turn:
            self._found = self._found and tells(shown_text(observation), self._wanted(self._turn - 1))
        self._turn += 1
        if self._turn <= len(self._hops):
            return search_action(self._hops[self._turn - 1].query)
        return answer_action(self._question.answers[0] if self._found else NOT_FOUND)

    def _wanted(self, place: int) -> Sequence[str]:
        """What the search of this hop has to bring: its value; any gold at the end, but for a comparison."""
        hop = self._hops[place]
        final = place == len(self._hops) - 1 and hop.found in self._question.answers
        return self._question.answers if final else (hop.found,)


def tells(text: str, golds: Sequence[str]) -> bool:
    """Whether one of the golds stands in the text, whole words in normal form."""
    words = f" {normal_form(text)} "
    return any(form and f" {form} " in words for form in map(normal_form, golds))
