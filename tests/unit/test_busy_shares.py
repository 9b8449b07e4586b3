"""Shares of time: unions of overlapping spans, open spans, and what is left over."""

from __future__ import annotations

import pytest

from controller.busy import BusyMeter


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_busy_shares_of_overlapping_parts() -> None:
    clock = Clock()
    meter = BusyMeter(clock)
    with meter.span("generation"):
        clock.now += 4
        with meter.span("learner"):
            clock.now += 2
    with meter.span("learner"), meter.span("learner"):
        clock.now += 1
    clock.now += 3
    shares, seconds = meter.shares(["generation", "learner"])
    assert seconds == 10
    assert shares == pytest.approx({"generation": 0.6, "learner": 0.3, "idle": 0.3})


def test_busy_open_spans_are_cut_at_the_period() -> None:
    clock = Clock()
    meter = BusyMeter(clock)
    span = meter.span("generation")
    span.__enter__()
    clock.now += 2
    assert meter.shares(["generation"])[0] == pytest.approx({"generation": 1.0, "idle": 0.0})
    clock.now += 1
    span.__exit__(None, None, None)
    clock.now += 3
    assert meter.shares(["generation"])[0] == pytest.approx({"generation": 0.25, "idle": 0.75})
