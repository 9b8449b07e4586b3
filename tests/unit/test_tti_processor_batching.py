"""A request's reply and statistics do not depend on what happens to the batch around it; nothing is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.unit.fake_batch import (
    INTERFACES,
    FakeRequest,
    Processor,
    batch_over,
    fake_request,
    processor_over,
    run_alone,
)

PIECES = ["<think>", "</think>", "<action>", "</action>", "\n", "<end>", *(f"w{i} " for i in range(58))]
QUEUE = [1, 4, 2]


def new_processor(rows: int = 8, interface: str = "v1") -> Processor:
    return processor_over(PIECES, rows, interface=interface)


def request_of(number: int, suffix: str = "") -> FakeRequest:
    """Request `number`, always the same one: thinks from the start, calms down, and asks for settings of its own."""
    rng = np.random.default_rng(number)
    calm = rng.normal(size=len(PIECES)) * 3

    def at(position: int) -> np.ndarray:
        row = calm + np.random.default_rng((number, position)).normal(size=len(PIECES)) * 3 / (1 + position)
        row[:2] -= 3
        row[0] += 60 if position == 0 else 0
        return row.astype(np.float32)

    return fake_request(
        f"r{number}{suffix}",
        at,
        number,
        max_tokens=int(rng.integers(4, 40)),
        eos=5,
        tti="paper" if rng.random() < 0.8 else "off",
        epsilon=float(rng.choice([0.05, 0.3])),
        window=int(rng.integers(1, 9)),
        min_tokens=int(rng.integers(1, 6)),
        think_cap=int(rng.integers(4, 20)),
        top_j=int(rng.choice([3, 20])),
        range=[1.0, 2.0, 3.0, 4.0] if rng.random() < 0.5 else None,
    )


def assert_same(got: dict[str, Any], expected: dict[str, Any], where: str) -> None:
    mine, theirs = (np.frombuffer(s["history"], np.float32) for s in (got, expected))
    np.testing.assert_allclose(mine, theirs, atol=2e-6, err_msg=where)
    np.testing.assert_allclose(got["range"], expected["range"], rtol=1e-7, err_msg=where)
    np.testing.assert_allclose(got["phi"], expected["phi"], rtol=1e-5, err_msg=where)
    for key in ("fired", "fired_at", "num_forced", "num_think_tokens", "problem"):
        assert got[key] == expected[key], (where, key)


@pytest.mark.parametrize("interface", INTERFACES)
@pytest.mark.parametrize("seed", range(6))
def test_batch_events_change_nothing(seed: int, interface: str) -> None:
    """Random arrival, condensing, swaps, preemption, discarded rows and placeholders."""
    rng = np.random.default_rng(seed)
    processor = new_processor(3, interface)
    batch = batch_over(processor)
    waiting = [request_of(seed * 100 + i) for i in range(14)]
    preempted: list[FakeRequest] = []
    back: list[FakeRequest] = []
    done: list[FakeRequest] = []
    for _ in range(1000):
        while waiting and len(batch.rows) + len(batch.added) - len(batch.removed) < 6 and rng.random() < 0.7:
            batch.add(waiting.pop(0))
        while back and rng.random() < 0.5:
            batch.add(back.pop())
        back, preempted = back + preempted, []  # never in the step after which it was preempted
        if len(batch.rows) >= 2 and not batch.removed and not batch.added and rng.random() < 0.3:
            a, b = rng.choice(len(batch.rows), 2, replace=False)
            batch.swaps.append((int(a), int(b)))
        discard = {r.id for r in [*batch.rows, *batch.added] if rng.random() < 0.15}
        batch.step(discard, placeholders=bool(rng.random() < 0.5))
        for request in list(batch.rows):
            if request.over:
                batch.remove(request)
                done.append(request)
            elif rng.random() < 0.08:
                batch.preempt(request)
                preempted.append(request)
        if not waiting and not preempted and not back and len(batch.removed) == len(batch.rows):
            break
    assert len(done) == 14
    for request in done:
        got = processor.take([(request.id, request.output)])[0]
        alone = request_of(int(request.id[1:]))
        expected = run_alone(new_processor(), alone)
        assert request.output == alone.output, request.id
        assert got is not None
        assert_same(got, expected, request.id)
    assert processor.kept()["requests"] == 0


def test_some_of_these_requests_fire_each_way() -> None:
    reasons = [run_alone(new_processor(), request_of(i))["fired"] for i in range(60)]
    assert {"", "uncertainty", "cap"} == set(reasons)


@pytest.mark.parametrize("interface", INTERFACES)
def test_tokens_measured_beyond_the_end_leave_no_trace(interface: str) -> None:
    """Async scheduling runs a request on until its end is known; its statistics stop at the true end."""
    for number in range(30):
        expected_request = request_of(number)
        expected = run_alone(new_processor(), expected_request)
        processor = new_processor(8, interface)
        batch, request = batch_over(processor), request_of(number)
        batch.add(request)
        for _ in range(len(expected_request.output) + 2):
            batch.step()
        assert request.output[: len(expected_request.output)] == expected_request.output
        got = processor.take([(request.id, expected_request.output)])[0]
        assert got is not None
        if expected["fired"] == "":
            got["fired"], got["fired_at"] = "", -1  # it may fire only beyond the end
        assert_same(got | {"range": 0}, expected | {"range": 0}, request.id)
        np.testing.assert_allclose(got["range"], expected["range"], rtol=1e-5)


@pytest.mark.parametrize("interface", INTERFACES)
def test_requests_without_t2po_are_untouched(interface: str) -> None:
    processor, plain = new_processor(8, interface), request_of(1)
    plain.params.extra_args = None
    other = request_of(2)
    batch = batch_over(processor)
    batch.add(plain)
    batch.add(other)
    while not other.over:
        batch.step()  # asserts that rows are either as they were or forced
    assert processor.kept() == {"requests": 1, "rows": 1, "slots": 8}
    alone = request_of(2)
    expected = run_alone(new_processor(), alone)
    got = processor.take([(other.id, other.output)])[0]
    assert got is not None
    assert_same(got, expected, "r2")


@pytest.mark.parametrize("interface", INTERFACES)
def test_two_hundred_requests_leave_nothing_behind(interface: str) -> None:
    processor = new_processor(4, interface)
    batch = batch_over(processor)
    finished = aborted = 0
    for first in range(0, 200, 4):
        requests = [request_of(first + i) for i in range(4)]
        for request in requests:
            batch.add(request)
        for _ in range(50):
            batch.step()
            if all(request.over for request in requests):
                break
            if first % 8 and len(requests[0].output) == 3:
                break  # the rest are aborted half-way
        over = [request for request in requests if request.over]
        gone = [request for request in requests if not request.over]
        for request in requests:
            batch.remove(request)
        taken = processor.take([(r.id, r.output) for r in over], [r.id for r in gone])
        assert None not in taken
        finished, aborted = finished + len(over), aborted + len(gone)
    batch._refresh()
    assert finished + aborted == 200 and aborted > 10 and finished > 10
    assert processor.kept() == {"requests": 0, "rows": 0, "slots": 4}


@pytest.mark.parametrize("interface", INTERFACES)
def test_a_client_that_never_asks_does_not_fill_the_memory(interface: str) -> None:
    processor = new_processor(2, interface)
    batch = batch_over(processor)
    for number in range(300):
        request = request_of(number)
        batch.add(request)
        batch.step()
        batch.remove(request)
    batch._refresh()
    assert processor.kept()["slots"] <= 2 * (8 * 2 + 64)


@pytest.mark.parametrize("interface", INTERFACES)
def test_an_unknown_request_gives_none_and_dropping_it_is_fine(interface: str) -> None:
    processor = new_processor(8, interface)
    assert processor.take([("nobody", [1, 2, 3])], ["nobody"]) == [None]


@pytest.mark.parametrize("interface", INTERFACES)
def test_a_request_that_comes_with_tokens_we_never_saw_is_left_alone(interface: str) -> None:
    processor = new_processor(8, interface)
    stranger = request_of(3)
    stranger.output.extend([0, 10])
    other = request_of(4)
    batch = batch_over(processor)
    batch.add(stranger)
    batch.add(other)
    while not other.over:
        batch.step()
    statistics = processor.take([(stranger.id, stranger.output)])[0]
    assert (
        statistics is not None
        and "2 tokens that were not measured" in statistics["problem"]
        and statistics["fired"] == ""
    )
    alone = request_of(4)
    expected = run_alone(new_processor(), alone)
    got = processor.take([(other.id, other.output)])[0]
    assert got is not None
    assert_same(got, expected, "r4")


@pytest.mark.parametrize("interface", INTERFACES)
@pytest.mark.parametrize("named", [False, True])
def test_requests_that_share_a_name_or_their_settings_do_not_share_a_slot(interface: str, named: bool) -> None:
    """vLLM gives the replies of one request with n > 1 the same settings object; a client may use an id twice."""
    processor = new_processor(8, interface)
    batch = batch_over(processor)
    first = request_of(7)
    if not named:
        del first.params.extra_args["t2po_id"]
    twins = [first, *(request_of(7, f"twin {number}") for number in range(3))]
    for number, twin in enumerate(twins):
        twin.params, twin.seed = first.params, 1000 + number  # the same question, other noise: replies differ
        batch.add(twin)
        batch.step()  # each a token behind the one before
    while not all(twin.over for twin in twins):
        batch.step(discard={twin.id for twin in twins if twin.over})
    for number, twin in enumerate(twins):
        alone = request_of(7)
        alone.seed = 1000 + number
        run_alone(new_processor(), alone)
        assert twin.output == alone.output
