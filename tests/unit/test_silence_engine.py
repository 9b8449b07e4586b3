"""When an engine counts as silent: asked and asked again, and nobody was answered."""

from __future__ import annotations

from actors.silence import Silence


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def made() -> tuple[Clock, Silence]:
    clock = Clock()
    return clock, Silence(clock)


def test_engine_that_nobody_asks_is_not_silent() -> None:
    clock, silence = made()
    clock.now += 1000.0
    assert silence.seconds == 0.0
    silence.asked()
    assert silence.seconds == 0.0


def test_silence_goes_on_over_requests_that_are_given_up_and_asked_again() -> None:
    clock, silence = made()
    clock.now += 1000.0
    for _ in range(3):
        silence.asked()
        clock.now += 30.0
        silence.left(answered=False)
        assert silence.seconds == 0.0
        clock.now += 0.25
    silence.asked()
    assert silence.seconds == 90.75


def test_any_answer_ends_it() -> None:
    clock, silence = made()
    silence.asked()
    silence.asked()
    clock.now += 50.0
    silence.left(answered=True)
    clock.now += 7.0
    assert silence.seconds == 7.0


def test_one_request_given_up_long_ago_is_forgotten() -> None:
    clock, silence = made()
    silence.asked()
    clock.now += 50.0
    silence.left(answered=False)
    clock.now += 600.0
    silence.asked()
    clock.now += 1.0
    assert silence.seconds == 1.0


def test_weight_update_is_no_silence() -> None:
    clock, silence = made()
    silence.asked()
    clock.now += 50.0
    silence.broken()
    clock.now += 2.0
    assert silence.seconds == 2.0
