"""One question of Search QA, and the hash of what it asks.

Owns: `Question`, `Hop` and the row that they are stored as. Called by everything that loads, makes or plays questions.
Must not know: where questions come from, retrieval.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Hop:
    """One step of an ideal search: the query, and the words that a good passage gives for it."""

    query: str
    found: str


@dataclass(frozen=True, slots=True)
class Question:
    """`answers` are all accepted, the first as the corpus writes it. `hops` counts the searches that it takes, 0 when
    nobody knows. `plan` is empty, or the ideal searches, the last of which finds what the answer needs."""

    id: str
    question: str
    answers: tuple[str, ...]
    data_source: str
    hops: int = 0
    plan: tuple[Hop, ...] = ()

    @property
    def digest(self) -> str:
        """Hash of what is asked and accepted; the order of answers and the white space play no part."""
        asked = [" ".join(self.question.split()), sorted(set(self.answers))]
        return hashlib.blake2b(json.dumps(asked).encode(), digest_size=16).hexdigest()


def question_row(question: Question) -> str:
    """One line of a stored panel."""
    row: dict[str, Any] = {
        "id": question.id,
        "question": question.question,
        "answers": list(question.answers),
        "data_source": question.data_source,
    }
    if question.plan:
        row |= {"hops": question.hops, "plan": [[hop.query, hop.found] for hop in question.plan]}
    return json.dumps(row, sort_keys=True, separators=(",", ":"))


def read_row(line: str | bytes) -> Question:
    """The question of a stored line. Raises ValueError, KeyError or TypeError for anything else."""
    row = json.loads(line)
    plan = tuple(Hop(query, found) for query, found in row.get("plan", ()))
    hops = int(row.get("hops", 0))
    return Question(row["id"], row["question"], tuple(row["answers"]), row["data_source"], hops, plan)
