"""The two wordings of the user message."""

from __future__ import annotations

import pytest

from envs.environment import View, find_environment
from envs.prompt import LONGEST_ACTION

OPENING = (
    "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in a room, you see a desk 1.\n\nYour task is to: put a mug in desk."
)
CAN = ["go to desk 1", "look"]


def render_message(style, goal, history, observation, can, num_steps=0, place=""):  # type: ignore[no-untyped-def]
    info = {"admissible": can, "place": place}
    view = View(goal=goal, observation=observation, history=history, num_steps=num_steps, info=info)
    return find_environment("alfworld").render(style, view)


def test_compact_first_turn() -> None:
    assert render_message("compact", "put a mug in desk", [], OPENING, CAN) == (
        "task: put a mug in desk.\nnow: You are in a room, you see a desk 1.\ncan: go to desk 1 | look"
    )


def test_compact_later_turn() -> None:
    history = [(OPENING, "go to desk 1"), ("You arrive at desk 1.\n On it...", "look")]
    assert render_message("compact", "put a mug in desk", history, "You look.", CAN) == (
        "task: put a mug in desk.\n"
        "seen: You are in a room, you see a desk 1. did: go to desk 1\n"
        "seen: You arrive at desk 1. On it... did: look\n"
        "now: You look.\n"
        "can: go to desk 1 | look"
    )


def test_full_carries_the_published_facts() -> None:
    first = render_message("full", "put a mug in desk", [], OPENING, CAN)
    assert OPENING in first and "['go to desk 1'\n 'look']" in first
    for tag in ("<think>", "</think>", "<action>", "</action>"):
        assert tag in first
    later = render_message("full", "put a mug in desk", [("You wait.", "look"), ("A", "b")], "You look.", CAN, 7)
    assert "Your task is to: put a mug in desk." in later and "7 step(s)" in later
    assert "[Observation 6: 'You wait.', Action 6: 'look']\n[Observation 7: 'A', Action 7: 'b']" in later
    assert "step 8, and you now observe: You look." in later


@pytest.mark.parametrize("style", ["full", "compact"])
def test_garbage_actions_neither_fill_nor_break_the_prompt(style: str) -> None:
    message = render_message(style, "g", [("o", "word\n" * 10_000)], "now", CAN)
    assert len(message) < 1000 + LONGEST_ACTION and "word\nword" not in message


def test_compact_lists_the_place_where_the_agent_stands() -> None:
    can = ["examine shelf 1", "go to bed 1", "go to shelf 2", "look"]
    message = render_message("compact", "g", [], "o", can, 0, "shelf 1")
    assert message.endswith("can: go to bed 1 | at shelf 1 | go to shelf 2 | examine shelf 1 | look")
