"""What each token of a reply reads as: pieces of text, with the tokens that spell each.

Owns: finding and loading the tokenizer, and the division of a reply into pieces. Called by `controller.report.excerpt`.
Must not know: trajectories, the page.

A tokenizer that works on bytes spells one character with up to four tokens, none of which is text by itself: those are
one piece of several tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

Decode = Callable[[Sequence[int]], str]

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
MAX_TOKENS = 4
"""Bytes of the longest character in UTF-8: a piece of more tokens will never become text."""
CACHED_WINDOWS = 1 << 16


@dataclass(frozen=True, slots=True)
class Piece:
    """Text, and how many tokens spell it."""

    text: str
    num_tokens: int


def load_decoder(folder: Path) -> Decode:
    """Token ids -> text, special tokens included, by the tokenizer of a policy's folder. Raises ValueError or OSError
    when it does not load."""
    file = folder / "tokenizer.json"
    if file.is_file():
        from tokenizers import Tokenizer

        try:
            fast = Tokenizer.from_file(str(file))
        except Exception as error:  # the Rust library raises bare Exceptions
            raise ValueError(f"{file}: the tokenizer does not load ({error})") from error
        return lambda ids: str(fast.decode(list(ids), skip_special_tokens=False))
    from transformers import AutoTokenizer  # slow to import: only where nothing else can read the tokenizer

    slow = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return lambda ids: str(slow.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def piece_maker(decode: Decode) -> Callable[[Sequence[int]], list[Piece]]:
    """A function from token ids to pieces whose texts in a row are the text of all. Replies repeat each other: what two
    neighbouring pieces read as is kept."""

    @lru_cache(maxsize=CACHED_WINDOWS)
    def addition(before: tuple[int, ...], ids: tuple[int, ...]) -> str:
        """What `ids` add to the text of the piece before them: whether a space is written depends on it."""
        return decode(before + ids)[len(decode(before)) :]

    def pieces(ids: Sequence[int]) -> list[Piece]:
        found: list[Piece] = []
        before: tuple[int, ...] = ()
        held: tuple[int, ...] = ()
        for place, token in enumerate(ids):
            held += (int(token),)
            text = addition(before, held)
            if text.endswith(UNFINISHED) and len(held) < MAX_TOKENS and place + 1 < len(ids):
                continue
            found.append(Piece(text, len(held)))
            before, held = held, ()
        return found

    return pieces
