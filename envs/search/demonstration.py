"""Demonstrations for the cold start: an agent that searches hop by hop, quotes what it found, and sometimes hesitates.

Owns: what the demonstrator does in a turn and how it puts that into a thought. Called by `envs.search.environment`.
Must not know: retrieval, tokenizers, models.

It follows a question's plan, one search a hop, and quotes the words in front of what it found, so that a small model
can find them by the words that it has just written. Where the search did not bring what the plan expects, the next turn
cannot be learned from what is shown: its plan is "unfounded", and nobody is trained on it. With probability
`detour_rate` a turn hesitates (the same search again, or one for a few words of the question), and a hesitation tends
to last: what T2PO removes (METHOD section 1).
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from envs.environment import Demonstrated
from envs.hesitation import Hesitation
from envs.search.prompt import documents
from envs.search.question import Question

QUOTED_WORDS = 3
"""Words in front of a find that a thought quotes."""
MOST_BETWEEN = 2
"""Words between those of a query that are taken over from the question with them."""


class Demonstrator:
    """Answers one question."""

    def __init__(self, question: Question, rng: random.Random, detour_rate: float) -> None:
        self._question = question
        self._rng = rng
        self._hesitation = Hesitation(rng, detour_rate)
        self._hop = -1
        """Whose documents should be before it: those of the plan's search of this number; -1: none yet."""
        self._astray = False
        self._lost = False

    def decide(self, observation: str, info: Mapping[str, Any]) -> Demonstrated:
        """The next action and its thought. `observation`: the question at first, then what the last search gave."""
        if self._hesitation.strikes():
            return self._hesitate()
        plan, text = self._question.plan, " ".join(documents(observation))
        if self._astray:  # what it had found is out of sight
            self._astray = False
            self._hop = max(self._hop, 0)
            return self._search("")
        quoted = quote(text, plan[self._hop].found) if self._hop >= 0 else ""
        self._lost = self._lost or (self._hop >= 0 and not quoted)
        self._hop += 1
        if self._hop < len(plan):
            return self._search(f"it says: {quoted}." if quoted else "")
        answer = next((known for known in self._question.answers if known in text), self._question.answers[0])
        said = quote(text, answer) or answer
        return self._turn(f"<answer>{answer}</answer>", f"it says: {said}.", "answer")

    def _search(self, seen: str) -> Demonstrated:
        return self._turn(f"<search>{self._query()}</search>", seen or "i search.", "search")

    def _query(self) -> str:
        """The plan's query in the question's own words, as far as it has them: they can be copied in a row."""
        hop = self._question.plan[self._hop]
        entity = self._question.plan[self._hop - 1].found if self._hop else ""
        return in_words_of(self._question.question, hop.query, entity)

    def _hesitate(self) -> Demonstrated:
        """The last search again, or one for a few words of the question, which leads away from what was found."""
        if self._hop >= 0 and not self._astray and self._rng.random() < 0.5:
            query = self._query()
        else:
            words = self._question.question.rstrip("?").split()
            begin = self._rng.randrange(max(1, len(words) - 2))
            query = " ".join(words[begin : begin + 3])
            self._astray = True
        thought = self._hesitation.thought("wait. that may be wrong.")
        return Demonstrated(action=f"<search>{query}</search>", thought=thought, plan="hesitate")

    def _turn(self, action: str, thought: str, plan: str) -> Demonstrated:
        """Now and then with a restatement that adds nothing."""
        restatements = ["so that is the next step.", "yes, that is it.", "that is the right step."]
        thought = self._hesitation.restated(thought, restatements, 0.4)
        return Demonstrated(action=action, thought=thought, plan="unfounded" if self._lost else plan)


def in_words_of(question: str, query: str, entity: str = "") -> str:
    """`query` with its words as they stand in the question, then `entity` (what the last search found, if the query
    asks about it), then the words that the question lacks; `query` itself where its words are far apart in it."""
    about = f" of {entity}" if entity and entity in query else ""
    wanted = (query.replace(entity, " ") if about else query).split()
    words = question.rstrip("?").split()
    plain = [word.strip(",").lower() for word in words]
    shared = [word for word in wanted if word.lower() in plain]
    others = [word for word in wanted if word.lower() not in plain]
    goal = {word.lower() for word in shared}
    spans = [
        (end - begin, begin)
        for begin in range(len(words))
        for end in range(begin + len(goal), min(begin + len(goal) + MOST_BETWEEN, len(words)) + 1)
        if goal <= set(plain[begin:end])
    ]
    if not spans or not goal:
        return query
    length, begin = min(spans)
    return " ".join([" ".join(words[begin : begin + length]).rstrip(",") + about, *others])


def quote(text: str, found: str) -> str:
    """`found` with the few words in front of it; "" when it is not there."""
    at = text.find(found) if found else -1
    return " ".join([*text[:at].split()[-QUOTED_WORDS:], found]) if at >= 0 else ""
