"""Where a thought begins and ends, in token ids: the automaton over reply tokens and the forced queue.

Owns: how the markers' text meets a tokenizer. Called by `actors.tti_slots` at start-up and once for each
new queue text. Must not know: logits, requests, vLLM.

The markers are matched as text, character by character, not as token ids: a tokenizer may write one marker
in several ways (`>` and `>` + newline can be different tokens), and a token may hold the end of one marker and
more. The automaton is expanded to whole tokens once, so that following a reply costs one look-up a token.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from actors.settings import TTISettings

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"
DEFAULT_QUEUE = "</think>\n<action>"


class MarkerError(ValueError):
    """A tokenizer that cannot write the markers, markers that cannot be followed, or replies too short for them."""


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that is used here."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...
    def decode(self, token_ids: list[int]) -> str: ...
    def convert_ids_to_tokens(self, ids: list[int]) -> list[str | None]: ...
    def __len__(self) -> int: ...


@dataclass(frozen=True)
class ThoughtAutomaton:
    """`next_state` [states, vocabulary]: 0.. before the thought, first_inside.. inside it, `done` after it.

    A state also says how much of the coming marker has been written. `done` is never left: a reply has one thought.
    """

    next_state: NDArray[np.int16]
    first_inside: int
    done: int
    pieces: Sequence[str]
    opening: str
    closing: str

    def run(self, state: int, token_ids: Sequence[int]) -> int:
        for token in token_ids:
            state = int(self.next_state[state, token])
        return state

    def thought_span(self, token_ids: Sequence[int], starts_inside: bool) -> tuple[int, int]:
        """Where the thinking tokens of a reply begin (-1: nowhere) and how many they are.

        They are those wholly between the markers (or to the end, if it was not closed).
        """
        texts = [self.pieces[token] for token in token_ids]
        whole = "".join(texts)
        opened = 0 if starts_inside else whole.find(self.opening)
        if opened < 0:
            return -1, 0
        first = opened if starts_inside else opened + len(self.opening)
        closed = whole.find(self.closing, first)
        ends = list(itertools.accumulate(map(len, texts)))
        inside = [
            end - len(text) >= first and (closed < 0 or end <= closed) for text, end in zip(texts, ends, strict=True)
        ]
        return (inside.index(True) if any(inside) else -1), sum(inside)


def _match_progress(marker: str, written: str) -> int:
    """Length of the longest beginning of `marker` that `written` ends with."""
    return max(length for length in range(len(marker) + 1) if written.endswith(marker[:length]))


def build_automaton(pieces: Sequence[str], opening: str = THINK_OPEN, closing: str = THINK_CLOSE) -> ThoughtAutomaton:
    """The automaton over tokens with these texts (index = token id)."""
    for marker in (opening, closing):
        if not marker or not marker.isascii() or any(char.isspace() for char in marker):
            raise MarkerError(f"thought marker {marker!r}: must be ASCII text without spaces; choose another marker")
    alphabet = sorted(set(opening + closing))
    first_inside, done = len(opening), len(opening) + len(closing)
    # By character; the last column is any character outside the markers.
    by_char = np.zeros((done + 1, len(alphabet) + 1), np.int16)
    by_char[done] = done
    for offset, marker in ((0, opening), (first_inside, closing)):
        for progress in range(len(marker)):
            by_char[offset + progress, -1] = offset
            for column, char in enumerate(alphabet):
                by_char[offset + progress, column] = offset + _match_progress(marker, marker[:progress] + char)

    lengths = np.array([len(piece) for piece in pieces])
    codes = np.frombuffer("".join(pieces).encode("utf-32-le", "surrogatepass"), np.uint32)
    columns = np.full(len(codes), len(alphabet), np.intp)
    for column, char in enumerate(alphabet):
        columns[codes == ord(char)] = column
    starts = np.concatenate(([0], np.cumsum(lengths)[:-1])) if len(pieces) else np.zeros(0, np.intp)
    table = np.tile(np.arange(done + 1, dtype=np.int16)[:, None], (1, len(pieces)))
    for place in range(int(lengths.max(initial=0))):
        tokens = np.flatnonzero(lengths > place)
        table[:, tokens] = by_char[table[:, tokens], columns[starts[tokens] + place]]
    return ThoughtAutomaton(table, first_inside, done, pieces, opening, closing)


def token_pieces(tokenizer: Tokenizer, vocabulary: int) -> list[str]:
    """The text of each token id below `vocabulary`, as the tokenizer spells it; "" for ids that it lacks."""
    known = min(len(tokenizer), vocabulary)
    pieces = [piece or "" for piece in tokenizer.convert_ids_to_tokens(list(range(known)))]
    return pieces + [""] * (vocabulary - known)


def queue_tokens(tokenizer: Tokenizer, text: str, automaton: ThoughtAutomaton) -> list[int]:
    """The forced queue of this text. White space may be lost by small tokenizers; anything else may not."""
    tokens = list(tokenizer.encode(text, add_special_tokens=False))
    written = tokenizer.decode(tokens)
    if "".join(written.split()) != "".join(text.split()):
        raise MarkerError(
            f"forced queue {text!r}: the tokenizer writes it as {written!r}; "
            "add the markers to the tokenizer as tokens, or choose a queue that it can write"
        )
    if not tokens or automaton.run(automaton.first_inside, tokens) != automaton.done:
        raise MarkerError(f"forced queue {text!r}: does not end a thought; it must contain the closing marker")
    return tokens


def check_cap_acts(tokenizer: Tokenizer, tti: TTISettings, response_tokens: int, forced_queue: str) -> None:
    """Raises MarkerError when a thought as long as the cap leaves no room for the queue and a token of the action:
    the cap would never act (`actors.uncertainty`: nothing fires unless the whole queue fits into the reply)."""
    opening, queue = (len(tokenizer.encode(text, add_special_tokens=False)) for text in (THINK_OPEN, forced_queue))
    needed = opening + tti.think_cap + queue + 1
    if tti.acts != "off" and needed > response_tokens:
        raise MarkerError(
            f"tti.think_cap = {tti.think_cap}: never acts in a reply of inference.response_tokens = {response_tokens}, "
            f"because this tokenizer writes {THINK_OPEN!r} in {opening} and {forced_queue!r} in {queue} tokens; "
            f"set inference.response_tokens to {needed} or more, or lower tti.think_cap"
        )
