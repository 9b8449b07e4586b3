"""WebShop's user message in its two wordings.

Owns: the published wording and the compact one for tiny models. Called by `envs.webshop.environment`. Must not know:
tokenizers, chat templates, how many pairs are remembered, the catalogue.
"""

from __future__ import annotations

from envs.environment import PromptStyle, View
from envs.prompt import one_line, shown_action
from envs.webshop.pages import shown_observation
from envs.webshop.shown_page import ShownPage, read_page

LONGEST_HISTORY = 13_000
"""Characters of a published prompt with history; a longer one is written without (the published set-up's limit)."""


def render(style: PromptStyle, view: View) -> str:
    """The user message. The compact style names remembered actions without the pages that they were taken on, writes
    all in lower case, and writes what can be clicked as the action that clicks it, an option behind its value: a small
    model copies it whole, and finds it by the value."""
    if style == "compact":
        return _compact(view)
    message = _full(view, with_history=True)
    return message if len(message) <= LONGEST_HISTORY or not view.history else _full(view, with_history=False)


def _compact(view: View) -> str:
    lines = [f"want: {one_line(view.goal).lower()}"]
    lines += [f"did: {shown_action(action).lower()}" for _, action in view.history]
    lines += _page(read_page(view.observation, view.goal, view.admissible))
    return "\n".join(lines)


def _page(page: ShownPage) -> list[str]:
    buttons = " ".join(page.buttons)
    if page.kind == "start":
        return ["page: start", "search[your query]"]
    if page.kind == "results":
        offers = [f"click[{offer.asin.lower()}] {_lower(offer.title)} {offer.price}" for offer in page.offers]
        return [f"page: results, {page.total.lower()}", *offers, buttons]
    if page.kind == "item":
        lines = [f"page: item, {_lower(page.title)} {page.price}"]
        for name, values in page.options.items():
            lines.append(f"{_lower(name)}: {', '.join(f'{value} click[{value}]' for value in values)}")
        return [*lines, buttons]
    return [f"page: {page.kind}, {_lower(' '.join(page.texts))}", buttons]


def _lower(text: str) -> str:
    return one_line(text).lower()


def _full(view: View, with_history: bool) -> str:
    goal = one_line(view.goal)
    shown = shown_observation(view.observation, view.goal)
    listed = "\n".join(f"'{action}'," for action in view.admissible)
    parts = ["You are a skilled agent that shops in the WebShop e-commerce environment.", f"Your task is to: {goal}."]
    if view.history and with_history:
        first = view.num_steps - len(view.history) + 1
        remembered = "\n".join(
            f"[Observation {first + k}: '{shown_observation(seen, view.goal)}', Action {first + k}: "
            f"'{shown_action(action)}']"
            for k, (seen, action) in enumerate(view.history)
        )
        parts.append(
            f"So far you have taken {view.num_steps} step(s). The latest {len(view.history)} were:\n{remembered}"
        )
        parts.append(f"This is step {view.num_steps + 1}, and you now observe: {shown}")
    else:
        parts.append(f"You now observe: {shown}")
    parts.append(f"The actions that are possible now are:\n[\n{listed}\n].")
    parts.append(
        "It is your turn to act. First think step by step about the situation, inside <think> and </think>. "
        "When you have thought, choose one of the possible actions and write it inside <action> and </action>."
    )
    return "\n".join(parts)
