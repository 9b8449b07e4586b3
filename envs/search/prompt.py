"""What the policy reads in Search QA: one user message a turn.

Owns: the two wordings. Called through `envs.search.environment` by the rollout and by the cold start. Must not know:
tokenizers, retrieval, how many turns there are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from envs.environment import PromptStyle
from envs.prompt import one_line, shown_action
from envs.search.env import shown_text

LONGEST_ACTION = 300
"""Characters of a past action that are shown: a garbage reply must not fill the prompt."""
_TITLE = re.compile(r'^"(.*)"\n')


def render(
    style: PromptStyle, goal: str, history: Sequence[tuple[str, str]], observation: str, num_steps: int | None = None
) -> str:
    """The user message. `history` holds the remembered (observation, action) pairs, oldest first: each action is shown
    with what it led to, which is the next pair's observation, and for the last one `observation`. `num_steps` is the
    number of turns taken so far, when the caller knows it (the full style numbers the steps)."""
    steps = list(
        zip([action for _, action in history], [*[seen for seen, _ in history[1:]], observation], strict=False)
    )
    if style == "compact":
        return _compact(goal, steps)
    if style == "full":
        return _full(goal, steps, num_steps)
    raise ValueError(f"env.prompt {style!r} is unknown: use full or compact")


def _compact(goal: str, steps: Sequence[tuple[str, str]]) -> str:
    """What earlier steps found is left out: a small model's prompt has room for one search."""
    lines = [
        f"question: {one_line(goal)}",
        *(f"step: {shown_action(action, LONGEST_ACTION) or 'nothing'}" for action, _ in steps),
    ]
    lines += [f"doc: {document}" for document in documents(steps[-1][1])] if steps else []
    return "\n".join(lines)


def documents(observation: str) -> list[str]:
    """The documents of an observation, each as plain text on one line, title first; or what the search said instead."""
    rest = f"\n{shown_text(observation)}"
    parts = []
    number = 1
    while f"\nDoc {number}: " in rest:
        before, rest = rest.split(f"\nDoc {number}: ", 1)
        parts.append(before)
        number += 1
    lines = (one_line(_TITLE.sub(r"\1. ", part)) for part in (*parts, rest))
    return [line for line in lines if line]


def _full(goal: str, steps: Sequence[tuple[str, str]], num_steps: int | None) -> str:
    parts = [
        "You are an expert agent who answers a question step by step, with the help of a search engine.",
        f"Your question: {one_line(goal)}",
    ]
    if steps:
        taken = len(steps) if num_steps is None else num_steps
        first = taken - len(steps) + 1
        told = "\n".join(
            f"Step {first + k}:{shown_action(action, LONGEST_ACTION)} {result}\n"
            for k, (action, result) in enumerate(steps)
        )
        shown = f"The latest {len(steps)}, each with its result:\n{told}"
        parts.append(f"So far you have taken {taken} step(s). {shown}")
    parts.append(
        "Now take the next step. Think first, inside <think> and </think>: what is known, and what is still missing? "
        "After the thought do exactly one of these two things:\n"
        "1. If something is missing, search for it: <search> your query </search>\n"
        "2. If you know enough, give the answer alone, without explanation: <answer> your answer </answer>. "
        "For example: <answer>Beijing</answer>."
    )
    return "\n".join(parts)
