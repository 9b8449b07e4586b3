"""Thresholds from target rates: what is foretold is what the engine's own core then does."""

from __future__ import annotations

import numpy as np
import pytest
from vllm import SamplingParams  # noqa: F401  importing vLLM first keeps its start-up out of the tests' time

from actors import uncertainty
from controller import calibration
from controller.calibration import (
    Thought,
    cut_curve,
    epsilon_for,
    eta_for,
    gammas_of,
    resampled_share,
    thoughts_of,
    window_means,
)
from tests.fakes import make_candidate
from tests.unit.fake_batch import fake_request, processor_over, run_alone

PIECES = ["<think>", "</think>", "<action>", "</action>", "\n", "<end>", *(f"w{i} " for i in range(40))]
WORDS = "a b c d e f g h"


def random_thought(seed: int) -> Thought:
    rng = np.random.default_rng(seed)
    length = int(rng.integers(1, 40))
    m = 0.5 + 0.5 * np.sin(np.cumsum(rng.normal(size=length + 1) * rng.choice([0.01, 0.1, 0.3])))
    m[rng.random(length + 1) < 0.03] = np.nan
    return Thought(m=m if rng.random() < 0.8 else m[:length], length=length)


def share_by_play(thoughts: list[Thought], epsilon: float, window: int, min_tokens: int) -> float:
    cut = 0
    for thought in thoughts:
        fires = [at for at, mean in enumerate(window_means(thought, window, min_tokens)) if mean < epsilon]
        cut += max(0, thought.length - fires[0]) if fires else 0
    return cut / sum(thought.length for thought in thoughts)


@pytest.mark.parametrize("seed", range(40))
def test_a_thought_ends_where_the_window_means_say(seed: int) -> None:
    """The same reply through the engine's core, once with the cap alone and once with ε: the cut is the foretold."""
    rng = np.random.default_rng(seed)
    window, min_tokens = int(rng.integers(1, 5)), int(rng.integers(1, 8))

    def logits(position: int) -> np.ndarray:
        row = np.random.default_rng((seed, position)).normal(size=len(PIECES)) * (6 / (1 + 0.3 * position) + 0.3)
        row += np.random.default_rng(seed).normal(size=len(PIECES))
        row[:6] -= 8.0
        row[0] += 80.0 if position == 0 else 0.0
        return row.astype(np.float32)

    asked = {"window": window, "min_tokens": min_tokens, "think_cap": 34, "top_j": 5}
    processor = processor_over(PIECES)
    free = fake_request("free", logits, seed, 40, tti="budget", **asked)
    statistics = run_alone(processor, free)
    history = np.frombuffer(statistics["history"], np.float32).reshape(-1, 3)
    at, length = statistics["think_at"], statistics["num_think_tokens"]
    means = window_means(Thought(m=history[at : at + length, 2].astype(float), length=length), window, min_tokens)
    possible = np.unique(means[np.isfinite(means)])
    for epsilon in (possible[:-1] + possible[1:])[::3] / 2:
        gated = run_alone(processor, fake_request("gated", logits, seed, 40, epsilon=float(epsilon), **asked))
        assert gated["fired"] == "uncertainty"
        assert gated["fired_at"] == at + int(np.flatnonzero(means < epsilon)[0])


def test_the_curve_is_what_each_threshold_would_cut() -> None:
    thoughts = [random_thought(seed) for seed in range(120)]
    for window, min_tokens in ((1, 1), (3, 6), (6, 2)):
        curve = cut_curve(thoughts, window, min_tokens)
        assert (np.diff(curve.share) >= 0).all()
        for epsilon in (0.0, 1e-3, 0.02, 0.05, 0.1, 0.3, 1.0):
            assert curve.at(epsilon) == pytest.approx(share_by_play(thoughts, epsilon, window, min_tokens))


def test_epsilon_meets_its_target_and_says_when_none_can() -> None:
    thoughts = [random_thought(seed) for seed in range(400)]
    curve = cut_curve(thoughts, 3, 4)
    for target in (0.05, 0.1, 0.2):
        assert share_by_play(thoughts, epsilon_for(curve, target), 3, 4) == pytest.approx(target, rel=0.05)
    with pytest.raises(ValueError, match="at most .*% can be cut"):
        epsilon_for(curve, curve.largest + 0.01)
    with pytest.raises(ValueError, match="at most 0.0% can be cut"):
        epsilon_for(cut_curve([], 3, 4), 0.2)
    with pytest.raises(ValueError, match="between 0 and 1"):
        epsilon_for(curve, 1.5)


def test_eta_meets_its_target_among_all_turns() -> None:
    gammas = np.random.default_rng(0).random(900)
    gammas[::3] = np.nan
    for target in (0.05, 0.3, 0.6):
        assert resampled_share(gammas, eta_for(gammas, target)) == pytest.approx(target, abs=1e-9)
    with pytest.raises(ValueError, match="600 of 900 turns have"):
        eta_for(gammas, 0.8)
    with pytest.raises(ValueError, match="between 0 and 1"):
        eta_for(gammas, 0.0)


def test_equal_gammas_are_taken_together() -> None:
    gammas = np.array([0.1, 0.1, 0.1, 0.2])
    assert resampled_share(gammas, eta_for(gammas, 0.25)) == 0.75
    assert resampled_share(gammas, eta_for(gammas, 1 - 1e-9)) == 1.0
    assert resampled_share(np.array([]), 0.5) == 0.0


def test_thoughts_end_where_forcing_begins() -> None:
    values = np.arange(8, dtype=np.float32) / 10
    forced = np.zeros(8, np.bool_)
    free = make_candidate(WORDS, think_at=1, num_think_tokens=4, uncertainty=values)
    (thought,) = thoughts_of([free])
    np.testing.assert_allclose(thought.m, values[1:6])
    forced[5:] = True
    cut = make_candidate(WORDS, think_at=1, num_think_tokens=4, uncertainty=values, forced=forced)
    np.testing.assert_allclose(thoughts_of([cut])[0].m, values[1:5])
    assert thoughts_of([make_candidate(WORDS, think_at=-1, num_think_tokens=0)]) == []
    assert len(gammas_of([])) == 0


def test_the_peak_is_the_engines_peak() -> None:
    assert calibration.PEAK_TOLERANCE == uncertainty.PEAK_TOLERANCE
