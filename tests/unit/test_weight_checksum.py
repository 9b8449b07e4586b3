"""Checksums of weights: any change of a tensor shows, and both sides sum up alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from envs.weight_checksum import checksum_of, difference
from learner.weight_sender import shapes_of, weight_checksums

BYTES = np.arange(64, dtype=np.uint8)


@given(place=st.integers(0, 63), bit=st.integers(0, 7))
def test_any_bit_counts(place: int, bit: int) -> None:
    changed = BYTES.copy()
    changed[place] ^= 1 << bit
    assert checksum_of("w", "float32", (4, 4), BYTES) != checksum_of("w", "float32", (4, 4), changed)


def test_name_format_shape_and_order_count() -> None:
    sums = {
        checksum_of("w", "float32", (4, 4), BYTES),
        checksum_of("v", "float32", (4, 4), BYTES),
        checksum_of("w", "int32", (4, 4), BYTES),
        checksum_of("w", "float32", (2, 8), BYTES),
        checksum_of("w", "float32", (4, 4), BYTES[::-1].copy()),
    }
    assert len(sums) == 5 and all(0 <= one < 2**64 for one in sums)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_counts_is_what_the_tensor_says_not_how_it_lies_in_memory(dtype: torch.dtype) -> None:
    tensor = torch.randn(6, 4).to(dtype)
    first = weight_checksums({"w": tensor.t()})
    assert first == weight_checksums({"w": tensor.t().contiguous()}) != weight_checksums({"w": tensor})
    assert weight_checksums({"scale": torch.tensor(1.0, dtype=dtype)})["scale"] > 0
    assert shapes_of({"w": tensor}) == (["w"], [str(dtype).removeprefix("torch.")], [[6, 4]])


def test_difference_names_what_differs() -> None:
    assert difference({"a": 1, "b": 2}, {"b": 2, "a": 1}) == ""
    assert difference({"a": 1, "b": 2, "c": 3}, {"b": 9, "c": 3, "d": 4}) == (
        "of 3 tensors 1 never arrived, such as a; 1 were never sent, such as d; 1 have other bytes, such as b"
    )
