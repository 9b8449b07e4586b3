"""Forced queues: each text is one queue of an engine, whatever comes later, and there is an end to them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from actors.forced_queues import MAX_QUEUES, ForcedQueues
from actors.think_markers import MarkerError, build_automaton
from tests.unit.fake_batch import PieceTokenizer

PIECES = ["a", "b", "</think>", "<action>", "\n"]


@pytest.fixture
def queues() -> ForcedQueues:
    return ForcedQueues(PieceTokenizer(PIECES), build_automaton(PIECES), torch.device("cpu"))


def test_queues_keep_their_numbers_and_are_padded(queues: ForcedQueues) -> None:
    texts = ["</think>", "</think>\n<action>", "</think>a"]
    assert [queues.number_of(text) for text in texts] == [0, 1, 2] == [queues.number_of(text) for text in texts]
    assert [queues.length(number) for number in range(3)] == queues.arrays.lengths.tolist() == [1, 3, 2]
    assert np.array_equal(queues.arrays.tokens, [[2, 0, 0], [2, 4, 3], [2, 0, 0]])


def test_a_text_that_cannot_be_written_leaves_no_queue(queues: ForcedQueues) -> None:
    with pytest.raises(MarkerError, match="the tokenizer writes it as"):
        queues.number_of("</think>z")
    assert queues.number_of("</think>") == 0


def test_there_is_an_end_to_new_texts(queues: ForcedQueues) -> None:
    texts = [f"</think>{'a' * number}" for number in range(MAX_QUEUES)]
    assert [queues.number_of(text) for text in texts] == list(range(MAX_QUEUES))
    with pytest.raises(MarkerError, match="256 other texts are in use; use one of them"):
        queues.number_of("</think>b")
    assert queues.number_of(texts[7]) == 7
