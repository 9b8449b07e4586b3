"""What each token of a reply reads as."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.report.token_texts import MAX_TOKENS, Piece, load_decoder, piece_maker
from tests.report_runs import THOUGHT, byte_tokenizer, save_tokenizer

TOKENIZER = byte_tokenizer()
PIECES = piece_maker(lambda ids: str(TOKENIZER.decode(list(ids), skip_special_tokens=False)))


@given(st.text(max_size=60).filter(lambda text: "\ufffd" not in text))
def test_pieces_in_a_row_are_the_text_and_hold_every_token(text: str) -> None:
    ids = TOKENIZER.encode(text).ids
    found = PIECES(ids)
    assert "".join(piece.text for piece in found) == text
    assert sum(piece.num_tokens for piece in found) == len(ids)
    assert [piece.num_tokens for piece in found] == [len(sign.encode()) for sign in text]


@given(st.lists(st.integers(0, 255), max_size=40))
def test_bytes_that_are_no_text_still_come_in_small_pieces(ids: list[int]) -> None:
    found = PIECES(ids)
    assert sum(piece.num_tokens for piece in found) == len(ids)
    assert all(1 <= piece.num_tokens <= MAX_TOKENS for piece in found)


def test_character_of_several_tokens_is_one_piece() -> None:
    assert PIECES(TOKENIZER.encode("a東b").ids) == [Piece("a", 1), Piece("東", 3), Piece("b", 1)]


def test_space_that_depends_on_the_token_before_is_kept(tmp_path: Path) -> None:
    """Decoders in the way of SentencePiece drop the space of a first token, and of no other."""
    words = {1: "go", 2: "to", 3: "it"}
    pieces = piece_maker(lambda ids: " ".join(words[one] for one in ids))
    assert pieces([1, 2, 3, 2]) == [Piece("go", 1), Piece(" to", 1), Piece(" it", 1), Piece(" to", 1)]


def test_tokenizer_of_a_policy_folder_is_read_with_its_special_tokens(tmp_path: Path) -> None:
    folder = save_tokenizer(tmp_path / "policy")
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens(["<end>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    decode = load_decoder(folder)
    assert decode(tokenizer.encode(THOUGHT + "<end>").ids) == THOUGHT + "<end>"


def test_tokenizer_that_is_damaged_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json: the tokenizer does not load"):
        load_decoder(tmp_path)
