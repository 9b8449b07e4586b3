"""The live view without a terminal: what it shows, and the plain lines that stand in for it."""

from __future__ import annotations

import io
import math

from rich.console import Console

from controller.live_view import LiveView, ViewState, duration, number, render, sparkline, step_line
from controller.parts_file import Part

VALUES = {
    "success": 0.25, "success_moving": 0.2, "reward": 2.5, "turns": 11.0, "trajectory_tokens": 312.0, "entropy": 0.41,
    "uncertainty": 0.33, "interventions": 0.22, "resamples": 0.12, "forced_share": 0.2, "approx_kl": 1e-5,
    "mismatch_kl": 3e-6, "grad_norm": 0.7, "staleness": 0.6, "tokens_per_s": 2400.0,
    "busy_generation": 0.7, "busy_environments": 0.04, "busy_learner": 0.5, "busy_weights": 0.01,
    "busy_checkpoint": 0.02, "busy_idle": 0.03, "eta_s": 1260.0,
}  # fmt: skip


def shown(state: ViewState, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(render(state, now=1000.0))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert isinstance(text, str)
    return text


def test_the_view_shows_numbers_parts_and_their_times() -> None:
    state = ViewState(run="alfworld-0", total_steps=40, step=12, values=VALUES, success_history=[0.0, 0.5, 1.0])
    state.parts = {"learner": Part("waiting for groups", since=958.0)}
    text = shown(state)
    for piece in ("alfworld-0", "step 12/40", "ETA 21 min", "20%", "▁▅█", "2.5", "312", "0.41", "0.33", "0.12",
                  "3.0e-06", "1.0e-05", "2400", "waiting for groups", "42 s",
                  "generation 70%  envs 4%  learner 50%  weights 1%  saving 2%  idle 3%"):  # fmt: skip
        assert piece in text, piece
    assert max(len(line) for line in text.splitlines()) <= 80


def test_before_the_first_step_nothing_is_invented() -> None:
    text = shown(ViewState(run="new", total_steps=0))
    assert "–" in text
    assert "nan" not in text


def test_narrow_terminals_do_not_break_it() -> None:
    assert "step 12/40" in shown(ViewState(run="r", total_steps=40, step=12, values=VALUES), width=40)


def test_sparkline_keeps_to_its_range() -> None:
    assert sparkline([-1.0, 0.0, 2.0, math.nan]) == "▁▁█ "
    assert len(sparkline([0.1] * 500)) < 60


def test_numbers_and_times_are_short() -> None:
    assert [number(x) for x in (None, math.nan, 0.0, 0.12345, 123.4, 4321.0, 1e-6, 1e6)] == [
        "–", "–", "0", "0.123", "123", "4321", "1.0e-06", "1.0e+06",
    ]  # fmt: skip
    assert [duration(x) for x in (None, 42.2, 720.0, 11100.0)] == ["–", "42 s", "12 min", "3 h 05 min"]


def test_outside_a_terminal_each_step_is_one_line() -> None:
    out = io.StringIO()
    with LiveView("r", 40, console=Console(file=out, width=40, force_terminal=False)) as view:
        view.note("cold start: [3/4] done")
        view.part("learner", "update")
        view.step(1, VALUES)
        view.step(2, {})
    lines = out.getvalue().splitlines()
    assert lines[0] == "cold start: [3/4] done"
    assert lines[1] == step_line(ViewState(run="r", total_steps=40, step=1, values=VALUES))
    assert len(lines) == 3
    assert "success 25% (moving 20%)" in lines[1]


def test_in_a_terminal_it_is_drawn_live() -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, height=30, force_terminal=True)
    with LiveView("r", 40, console=console) as view:
        view.step(3, VALUES)
    assert "3/40" in out.getvalue()


def test_a_part_that_repeats_itself_keeps_its_time() -> None:
    view = LiveView("r", 1, console=Console(file=io.StringIO()))
    view.part("learner", "update")
    since = view.state.parts["learner"].since
    view.part("learner", "update")
    assert view.state.parts["learner"].since == since
