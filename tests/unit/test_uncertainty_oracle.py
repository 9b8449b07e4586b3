"""M, firing and Φ against the independent float64 account in `uncertainty_oracle`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from vllm import SamplingParams  # noqa: F401  importing vLLM first keeps its start-up out of the tests' time

from actors.think_markers import DEFAULT_QUEUE
from actors.token_distribution import measure_distribution
from actors.uncertainty import phi
from tests.unit import uncertainty_oracle as oracle
from tests.unit.fake_batch import INTERFACES, FakeRequest, PieceTokenizer, batch_over, fake_request, processor_over

WORDS = [f"w{i} " for i in range(40)]
ONE_TOKEN_MARKERS = ["<think>", "</think>", "<action>", "</action>", "\n", "<end>", *WORDS]
# `<think>` is "<", "think", ">"; ">\n" and "></" are tokens of their own, so markers meet other text inside a token.
SPLIT_MARKERS = ["<", "</", "think", ">", ">\n", "action", "\n", "<end>", "></", "/", *WORDS]


def logits_of(kind: str, seed: int, pieces: list[str]) -> Any:
    """Logits by position of one request: every shape that a model may produce."""
    marker_ids = list(range(len(pieces) - len(WORDS)))

    def at(position: int) -> np.ndarray:
        rng = np.random.default_rng((seed, position, 7))
        size = len(pieces)
        if kind == "peaked":
            row = rng.normal(size=size) * 8
        elif kind == "flat":
            row = rng.normal(size=size) * 1e-3
        elif kind == "constant":
            row = np.zeros(size)
        elif kind == "masked":
            row = np.where(rng.random(size) < 0.7, -np.inf, rng.normal(size=size) * 3)
            row[rng.integers(size)] = 1.0
        elif kind == "ties":
            row = rng.integers(0, 3, size=size).astype(float)
        elif kind == "huge":
            row = rng.normal(size=size) * 10.0 ** rng.integers(0, 30)
        elif kind == "broken":
            row = rng.normal(size=size) * 3
            if rng.random() < 0.2:
                row[rng.integers(size)] = rng.choice([np.nan, np.inf])
            elif rng.random() < 0.1:
                row[:] = -np.inf
        else:  # a thought that calms down: large differences first, small ones later
            row = (
                np.random.default_rng((seed, 1)).normal(size=size) * (2 + 3 / (1 + position))
                + rng.normal(size=size) * 0.02
            )
        if kind != "broken" and rng.random() < 0.25 and kind not in ("constant", "flat"):
            row[rng.choice(marker_ids)] += 6.0
        return row.astype(np.float32)

    return at


KINDS = ("peaked", "flat", "constant", "masked", "ties", "huge", "broken", "calm")


def make_requests(
    count: int, first: int, pieces: list[str], queue: list[int]
) -> list[tuple[FakeRequest, oracle.OracleReply]]:
    made = []
    open_ids = PieceTokenizer(pieces).encode("<think>", add_special_tokens=False)
    for number in range(first, first + count):
        rng = np.random.default_rng((number, 11))
        kind = KINDS[number % len(KINDS)]
        base = logits_of(kind, number, pieces)
        starts = rng.random() < 0.8

        def at(position: int, base: Any = base, starts: bool = starts) -> np.ndarray:
            row = base(position)
            if starts and position < len(open_ids):  # most replies begin with the opening marker
                row = np.full_like(row, -60.0)
                row[open_ids[position]] = 20.0
            return row

        asked: dict[str, Any] = {
            "tti": str(rng.choice(["paper"] * 8 + ["budget", "off"])),
            "signal": str(rng.choice(["paper"] * 5 + ["release", "entropy", "confidence"])),
            "alpha": float(rng.choice([0.0, 0.4, 1.0])),
            "epsilon": float(rng.choice([0.0, 0.05, 0.2, 0.6])),
            "window": int(rng.integers(1, 5)),
            "min_tokens": int(rng.integers(1, 8)),
            "think_cap": int(rng.integers(2, 30)),
            "top_j": int(rng.choice([1, 5, 20, 1000])),
        }
        if rng.random() < 0.4:
            asked["range"] = [0.5, 2.0, 3.0, 9.0]
        max_tokens = int(rng.choice([1, 2, 12, 30, 40]))
        request = fake_request(f"r{number}", at, number, max_tokens, eos=pieces.index("<end>"), **asked)
        settings = {key: value for key, value in asked.items() if key != "range"}
        expected = oracle.reply(
            at,
            request.sample,
            pieces,
            queue,
            max_tokens=max_tokens,
            eos=request.eos,
            before=asked.get("range", (math.inf, -math.inf, math.inf, -math.inf)),
            **settings,
        )
        made.append((request, expected))
    return made


def check(request: FakeRequest, statistics: dict[str, Any], expected: oracle.OracleReply) -> bool:
    """True if the reply was compared; False if a decision of it hung on less than what float32 can tell."""
    if expected.smallest_margin < 2e-5 or expected.smallest_span < 3e-3:
        return False
    where = request.id
    assert request.output == expected.tokens, where
    history = np.frombuffer(statistics["history"], np.float32).reshape(-1, 3)
    m = history[:, 2]
    assert (statistics["fired"], statistics["fired_at"]) == (expected.fired, expected.fired_at), where
    np.testing.assert_allclose(m, expected.m, atol=1e-4, err_msg=where)
    sampled = ~np.array(expected.forced)
    np.testing.assert_allclose(history[sampled, 0], np.array(expected.entropy)[sampled], atol=1e-4, err_msg=where)
    assert statistics["num_think_tokens"] == expected.num_think_tokens, where
    np.testing.assert_allclose(statistics["range"], expected.signal_range, atol=1e-4, rtol=1e-5, err_msg=where)
    np.testing.assert_allclose(statistics["phi"], expected.phi, rtol=2e-3, err_msg=where)
    np.testing.assert_allclose(phi(m, expected.release), expected.phi, rtol=2e-3, err_msg=where)
    return True


@pytest.mark.parametrize("pieces", [ONE_TOKEN_MARKERS, SPLIT_MARKERS], ids=["one token a marker", "several"])
@pytest.mark.parametrize("interface", INTERFACES)
@pytest.mark.parametrize("count", [480, pytest.param(5000, marks=[pytest.mark.exhaustive, pytest.mark.timeout(1800)])])
def test_replies_agree_with_the_oracle(pieces: list[str], count: int, interface: str) -> None:
    tokenizer = PieceTokenizer(pieces)
    queue = tokenizer.encode(DEFAULT_QUEUE, add_special_tokens=False)
    processor = processor_over(pieces, interface=interface)
    compared, fired = 0, {"": 0, "uncertainty": 0, "cap": 0}
    for first in range(0, count, 24):
        made = make_requests(24, first, pieces, queue)
        batch = batch_over(processor)
        for request, _ in made:
            batch.add(request)
        while batch.rows or batch.added:
            batch.step()
            for request in list(batch.rows):
                if request.over and batch.rows.index(request) not in batch.removed:
                    batch.remove(request)
            if len(batch.removed) == len(batch.rows):
                break
        for request, expected in made:
            statistics = processor.take([(request.id, request.output)])[0]
            assert statistics is not None
            if check(request, statistics, expected):
                compared += 1
                fired[expected.fired] += 1
        batch._refresh()
    assert compared > 0.6 * count
    assert fired["uncertainty"] > 0.02 * count, fired
    assert fired["cap"] > 0.05 * count, fired
    assert processor.kept()["requests"] == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 2, 19, 46, 1024, 5000])
def test_entropy_and_confidence(kind: str, size: int) -> None:
    rows = (
        np.stack(
            [logits_of(kind, seed, [""] * (size - min(size, len(WORDS))) + WORDS[:size])(seed) for seed in range(6)]
        )
        if size > 60
        else np.stack([np.resize(logits_of(kind, seed, ["a"] * 20 + WORDS)(seed), size) for seed in range(6)])
    )
    for top_j in (1, 20):
        entropy, confidence, log_max = measure_distribution(torch.from_numpy(rows), top_j)
        for row in range(len(rows)):
            expected = oracle.entropy_and_confidence(rows[row], top_j)
            np.testing.assert_allclose((entropy[row], confidence[row]), expected, atol=2e-5, rtol=1e-5)
            expected = -oracle.entropy_and_confidence(rows[row], 1)[1]
            if not math.isnan(expected):  # else entropy says that the row is not measured
                np.testing.assert_allclose(log_max[row], expected, atol=2e-5, rtol=1e-5)


def test_each_row_may_have_its_own_j() -> None:
    rows = torch.randn(5, 300, generator=torch.Generator().manual_seed(0)) * 4
    top_j = torch.tensor([1, 3, 20, 299, 1000])
    confidence = measure_distribution(rows, 1000, top_j).confidence
    for row in range(5):
        expected = measure_distribution(rows[row : row + 1], int(top_j[row])).confidence
        torch.testing.assert_close(confidence[row : row + 1], expected)


def test_bfloat16_logits_are_measured_in_float32() -> None:
    rows = (torch.randn(4, 1000, generator=torch.Generator().manual_seed(1)) * 5).bfloat16()
    ours, same = measure_distribution(rows, 20), measure_distribution(rows.float(), 20)
    torch.testing.assert_close(ours[0], same[0], rtol=0, atol=0)
    torch.testing.assert_close(ours[1], same[1], rtol=0, atol=0)


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    rows = torch.randn(64, 1024, generator=torch.Generator().manual_seed(2)) * 5
    entropy, confidence, _ = measure_distribution(rows, 20)
    for count in (1, 3, 17):
        alone = measure_distribution(rows[:count].clone(), 20)
        torch.testing.assert_close(alone[0], entropy[:count], rtol=0, atol=1e-6)
        torch.testing.assert_close(alone[1], confidence[:count], rtol=0, atol=1e-6)
