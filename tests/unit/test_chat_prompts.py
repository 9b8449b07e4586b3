"""Messages as token ids: the template, the closing token, and what is cut from a long prompt."""

from __future__ import annotations

from envs.chat import encode_prompt, encode_reply, fit_prompt
from tests.fakes import WordTokenizer


def test_chat_prompt_ends_with_the_generation_prompt() -> None:
    tokenizer = WordTokenizer()
    prompt = encode_prompt(tokenizer, "look at me")
    assert tokenizer.read(prompt) == "look at me <reply>"
    assert prompt.dtype == "int32"


def test_chat_reply_ends_with_end_of_sequence() -> None:
    tokenizer = WordTokenizer()
    assert tokenizer.read(encode_reply(tokenizer, "go on")) == "go on <eos>"


def test_chat_fit_drops_the_oldest_history_first() -> None:
    tokenizer = WordTokenizer()
    pairs = ["p1", "p2", "p3"]
    asked: list[int] = []

    def render(count: int) -> str:
        asked.append(count)
        return " ".join(["task", *pairs[len(pairs) - count :], "now"])

    assert tokenizer.read(fit_prompt(tokenizer, render, 3, max_tokens=4)) == "task p3 now <reply>"
    assert asked == [3, 2, 1]


def test_chat_fit_keeps_front_and_end_of_a_book() -> None:
    tokenizer = WordTokenizer()
    book = " ".join(["task", *(f"w{number}" for number in range(1000)), "now"])
    prompt = fit_prompt(tokenizer, lambda count: book, 2, max_tokens=5)
    assert tokenizer.read(prompt) == "task w0 w999 now <reply>"


def test_chat_fit_of_a_short_prompt_renders_once() -> None:
    tokenizer = WordTokenizer()
    calls: list[int] = []
    fit_prompt(tokenizer, lambda count: calls.append(count) or "short", 2, max_tokens=5)  # type: ignore[func-returns-value]
    assert calls == [2]
