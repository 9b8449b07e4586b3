"""The estimate of saved tokens against simulation, where the uncut lengths are known, and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from controller.tokens_saved import tokens_saved


def slow_estimate(lengths: list[int], cut: list[bool]) -> float:
    """The textbook's product-limit estimator, one thought and one length at a time."""
    longest = max(lengths)

    def survival(upto: int) -> float:
        product = 1.0
        for t in range(upto + 1):
            at_risk = sum(length >= t for length in lengths)
            ended = sum(length == t and not was_cut for length, was_cut in zip(lengths, cut, strict=True))
            product *= 1.0 - (ended / at_risk if at_risk else 0.0)
        return product

    total = 0.0
    for length, was_cut in zip(lengths, cut, strict=True):
        if was_cut and survival(length) > 0.0:
            total += sum(survival(u) for u in range(length, longest + 1)) / survival(length)
    return total


@pytest.mark.parametrize("seed", range(20))
def test_estimate_matches_a_slow_oracle(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 12, size=rng.integers(2, 40))
    cut = rng.random(len(lengths)) < rng.random()
    if cut.all():
        cut[0] = False
    assert tokens_saved(lengths, cut) == pytest.approx(slow_estimate(lengths.tolist(), cut.tolist()), rel=1e-9)


def test_estimate_by_hand() -> None:
    # Two thoughts ended at 2, two at 6; one was cut at 2: half of those that go on beyond 2... all end at 6.
    lengths, cut = np.array([2, 2, 6, 6, 2]), np.array([False, False, False, False, True])
    # At 2 five were there, two ended; the cut one was not one of them, so it would have had 4 more.
    assert tokens_saved(lengths, cut) == pytest.approx(4.0)


def test_estimate_recovers_what_was_really_cut_off() -> None:
    rng = np.random.default_rng(0)
    whole = rng.geometric(0.08, size=40_000) + 5
    limit = rng.integers(8, 60, size=len(whole))  # the cut does not look at the thought
    cut = limit < whole
    really = int((whole - limit)[cut].sum())
    assert tokens_saved(np.minimum(whole, limit), cut) == pytest.approx(really, rel=0.05)


def test_nothing_cut_saves_nothing_and_everything_cut_is_unknown() -> None:
    assert tokens_saved(np.array([3, 4]), np.array([False, False])) == 0.0
    assert np.isnan(tokens_saved(np.array([3, 4]), np.array([True, True])))
    with pytest.raises(ValueError, match="one length"):
        tokens_saved(np.array([3, 4]), np.array([True]))
