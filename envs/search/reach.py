"""How many searches a question takes: is the suite honest multi-hop?

Owns: `measure_reach` and its report. Called by the tests and by the command below. Must not know: prompts, rewards.

`python -m envs.search.reach PANEL [--topk 3]` prints it as JSON.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from envs.search.expert import tells
from envs.search.panels import panel_questions
from envs.search.question import Question
from envs.search.retriever import Retriever, local_retriever


def measure_reach(
    questions: Iterable[Question], retriever: Retriever, topk: int = 3
) -> dict[str, dict[str, float | int]]:
    """Shares by data source, of questions with a plan.

    `raw`: what the answer needs is among the passages for the question itself (a comparison needs both values); `one`,
    `two`, `three`: the same within so many searches of the plan, in its order, or for the question itself; `last`: the
    answer is among the passages for the plan's last query; `plan`: every search of the plan finds its value.
    """
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for question in questions:
        if question.plan:
            counts[question.data_source].update(_one(question, retriever, topk))
    return {
        source: {
            "questions": tally["questions"],
            **{name: round(tally[name] / tally["questions"], 4) for name in _SHARES},
        }
        for source, tally in sorted(counts.items())
    }


_SHARES = ("raw", "one", "two", "three", "last", "plan")


def _one(question: Question, retriever: Retriever, topk: int) -> dict[str, int]:
    def found(query: str) -> str:
        return "\n".join(passage.contents for passage in retriever.search(query, topk))

    raw, planned = found(question.question), [found(hop.query) for hop in question.plan]
    compares = question.plan[-1].found not in question.answers
    needs: list[Sequence[str]] = [(hop.found,) for hop in question.plan] if compares else [question.answers]

    def enough(*texts: str) -> bool:
        return all(tells("\n".join(texts), golds) for golds in needs)

    within = {name: enough(raw) or enough(*planned[:most]) for most, name in enumerate(("one", "two", "three"), 1)}
    return {
        "questions": 1,
        "raw": enough(raw),
        **within,
        "last": tells(planned[-1], needs[-1]),
        "plan": all(tells(text, (hop.found,)) for text, hop in zip(planned, question.plan, strict=True)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m envs.search.reach", description=__doc__)
    parser.add_argument("panel")
    parser.add_argument("--topk", type=int, default=3)
    chosen = parser.parse_args()
    report = measure_reach(panel_questions(chosen.panel), local_retriever(), chosen.topk)
    print(json.dumps({"panel": chosen.panel, "topk": chosen.topk, **report}, indent=2))


if __name__ == "__main__":
    main()
