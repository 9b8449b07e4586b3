"""The forced queues that an engine's requests ask for: each text once, as token ids, in one array.

Owns: text -> number of a queue, and how many texts an engine remembers. Called by `actors.tti_slots`. Must not know:
slots, requests, when a queue is written.
"""

from __future__ import annotations

import numpy as np
import torch

from actors.think_markers import MarkerError, ThoughtAutomaton, Tokenizer, queue_tokens
from actors.uncertainty import Queues

MAX_QUEUES = 256
"""Different queue texts that an engine remembers; clients choose them, so there must be an end."""


class ForcedQueues:
    """Queues by number. `arrays`: all of them on the engine's device, made anew when one is added."""

    def __init__(self, tokenizer: Tokenizer, automaton: ThoughtAutomaton, device: torch.device) -> None:
        self._tokenizer, self._automaton, self._device = tokenizer, automaton, device
        self._numbers: dict[str, int] = {}
        self._tokens: list[list[int]] = []
        self.arrays = self._place(np.zeros((1, 1), np.int64), np.zeros(1, np.int64))

    def number_of(self, text: str) -> int:
        """The queue of this text. Raises MarkerError for one that cannot be written, or one too many."""
        if text not in self._numbers:
            if len(self._numbers) == MAX_QUEUES:
                raise MarkerError(f"forced queue {text!r}: {MAX_QUEUES} other texts are in use; use one of them")
            self._tokens.append(queue_tokens(self._tokenizer, text, self._automaton))
            self._numbers[text] = len(self._tokens) - 1
            padded = np.zeros((len(self._tokens), max(map(len, self._tokens))), np.int64)
            for row, queue in zip(padded, self._tokens, strict=True):
                row[: len(queue)] = queue
            self.arrays = self._place(padded, np.array([len(queue) for queue in self._tokens]))
        return self._numbers[text]

    def length(self, number: int) -> int:
        """Tokens of a queue."""
        return len(self._tokens[number])

    def _place(self, tokens: np.ndarray, lengths: np.ndarray) -> Queues:
        placed = (torch.from_numpy(array).to(self._device, non_blocking=True) for array in (tokens, lengths))
        return Queues(*placed)
