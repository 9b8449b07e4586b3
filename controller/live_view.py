"""The view of a running training in the terminal.

Owns: what is shown and how, and that it is written down for `t2po status` (`controller.parts_file`). Called by the
training loop, which feeds it dictionaries. Must not know: where the numbers come from. `render` is pure: state and time
in, something that rich prints out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from controller.deadline import Wait
from controller.parts_file import Part, PartsFile
from controller.stall_cause import NUMBER, StallNotes, cause_of_stall, silent_parts

BARS = "▁▂▃▄▅▆▇█"
HISTORY = 32

BUSY = {
    "generation": "generation", "environments": "envs", "learner": "learner", "weights": "weights",
    "checkpoint": "saving", "idle": "idle",
}  # fmt: skip
"""The parts whose share of the time is shown (metrics `busy_*`), and how they are called in 80 columns."""


@dataclass(slots=True)
class ViewState:
    """Everything the view shows. `values` are the metrics of the last step, by name."""

    run: str
    total_steps: int
    step: int = 0
    values: dict[str, float] = field(default_factory=dict)
    success_history: list[float] = field(default_factory=list)
    parts: dict[str, Part] = field(default_factory=dict)
    silent: dict[str, float] = field(default_factory=dict)
    """Since when (seconds since 1970) a part owes an answer."""
    stall: str = ""
    """Why nothing goes on; empty while it does."""

    @property
    def parts_now(self) -> dict[str, Part]:
        """`parts`, and of those that answer nothing that they do not."""

        def words(name: str) -> str:
            return f"answers nothing (before: {self.parts[name].doing})" if name in self.parts else "answers nothing"

        silent = {name: Part(words(name), since) for name, since in self.silent.items()}
        return {**self.parts, **silent}


def render(state: ViewState, now: float) -> RenderableType:
    """The whole view."""
    v = state.values
    head = Table.grid(padding=(0, 2))
    head.add_column(no_wrap=True)
    head.add_row(
        Text(f"step {state.step}/{state.total_steps}", style="bold"),
        ProgressBar(total=max(state.total_steps, 1), completed=state.step, width=24),
        f"ETA {duration(v.get('eta_s'))}",
        f"{number(v.get('step_s'))} s/step",
    )
    success = Text.assemble(
        ("success ", "bold"), (percent(v.get("success_moving", v.get("success"))), "bold green"), "  ",
        (sparkline(state.success_history), "green"), f"  last step {percent(v.get('success'))}",
    )  # fmt: skip
    body = Table.grid(padding=(0, 2), expand=False)
    for _ in range(3):
        body.add_column(style="dim")
        body.add_column(justify="right", min_width=7)
    body.add_row("reward", number(v.get("reward")), "entropy", number(v.get("entropy")),
                 "mismatch KL", number(v.get("mismatch_kl")))  # fmt: skip
    body.add_row("turns", number(v.get("turns")), "M", number(v.get("uncertainty")), "KL", number(policy_kl(v)))
    body.add_row("tokens", number(v.get("trajectory_tokens")), "thoughts cut", percent(v.get("forced_share")),
                 "grad norm", number(v.get("grad_norm")))  # fmt: skip
    body.add_row("invalid", percent(v.get("invalid")), "tokens saved a turn", number(v.get("tokens_saved")),
                 "staleness", number(v.get("staleness")))  # fmt: skip
    body.add_row("tokens/s", number(v.get("tokens_per_s")), "resamples a turn", number(v.get("resamples")),
                 "queue", number(v.get("queue_depth")))  # fmt: skip
    shares = "  ".join(f"{label} {percent(v.get('busy_' + part))}" for part, label in BUSY.items())
    busy = Text.assemble(("busy   ", "dim"), shares)
    rows: list[RenderableType] = [head, success, body, busy, parts_table(state.parts_now, now)]
    if state.stall:
        rows.append(Text(state.stall, style="yellow"))
    return Panel(Group(*rows), title=f"t2po · {state.run}", title_align="left", border_style="dim")


def parts_table(parts: Mapping[str, Part], now: float) -> RenderableType:
    """One line a part: what it does now and for how long."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    for name, part in parts.items():
        table.add_row(name, part.doing, duration(now - part.since))
    return table


def policy_kl(values: Mapping[str, float]) -> float | None:
    """The KL to the reference policy where it is measured, else to the policy that sampled."""
    return values.get("reference_kl", values.get("approx_kl"))


def sparkline(values: list[float]) -> str:
    """Shares between 0 and 1 as bars; a gap where nothing was measured."""
    return "".join(
        BARS[min(len(BARS) - 1, int(max(0.0, value) * len(BARS)))] if math.isfinite(value) else " "
        for value in values[-HISTORY:]
    )


def number(value: float | None) -> str:
    """Three significant digits; a dash when not measured."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.3g}" if abs(value) < 1e3 else f"{value:.0f}"
    return f"{value:.1e}"


def percent(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.0%}"


def duration(seconds: float | None) -> str:
    """`42 s`, `12 min`, `3 h 05 min`."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    whole = max(0, round(seconds))
    if whole < 100:
        return f"{whole} s"
    minutes = round(whole / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def step_line(state: ViewState) -> str:
    """One step in one plain line, for logs and pipes."""
    v = state.values
    fields = [
        f"step {state.step}/{state.total_steps}",
        f"success {percent(v.get('success'))} (moving {percent(v.get('success_moving'))})",
        f"reward {number(v.get('reward'))}",
        f"turns {number(v.get('turns'))}",
        f"tokens {number(v.get('trajectory_tokens'))}",
        f"invalid {percent(v.get('invalid'))}",
        f"entropy {number(v.get('entropy'))}",
        f"M {number(v.get('uncertainty'))}",
        f"cut {percent(v.get('forced_share'))}",
        f"saved {number(v.get('tokens_saved'))}",
        f"resamples {number(v.get('resamples'))}",
        f"KL {number(policy_kl(v))}",
        f"mismatch {number(v.get('mismatch_kl'))}",
        f"grad {number(v.get('grad_norm'))}",
        f"stale {number(v.get('staleness'))}",
        f"{number(v.get('tokens_per_s'))} tok/s",
        "busy " + " ".join(f"{label} {percent(v.get('busy_' + part))}" for part, label in BUSY.items()),
        f"ETA {duration(v.get('eta_s'))}",
    ]
    return " | ".join(fields)


class LiveView:
    """A live view in a terminal, plain lines anywhere else. A context manager; safe to feed from threads."""

    def __init__(
        self, run: str, total_steps: int, console: Console | None = None, *, folder: Path | None = None
    ) -> None:
        """`folder`: the run's, where the parts are written down while it lasts."""
        self.state = ViewState(run=run, total_steps=total_steps)
        self._console = console or Console()
        self._live: Live | None = None
        self._file = PartsFile(folder) if folder else None
        self._stall_notes = StallNotes()

    def __enter__(self) -> LiveView:
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=lambda: render(self.state, time.time()), console=self._console, refresh_per_second=2
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._file is not None:
            self._file.write(self.state.parts_now, "", ended=True)

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """The numbers of one finished step."""
        self.state.step = step
        self.state.values = dict(values)
        self.state.success_history.append(values.get("success", math.nan))
        if self._live is None:
            self._plain(step_line(self.state))

    def part(self, name: str, doing: str) -> None:
        """`name` does this now. Said again, also with other numbers in it, it keeps its time."""
        old = self.state.parts.get(name)
        if old is None or old.doing != doing:
            now = time.time()
            same = old is not None and NUMBER.sub("", old.doing) == NUMBER.sub("", doing)
            since = old.since if old is not None and same else now
            self.state.parts = {**self.state.parts, name: Part(doing, since, now)}

    def come_round(self, waits: Sequence[Wait]) -> None:
        """Every second, with what the run waits for: finds out whether it stands still and writes the parts down."""
        now = time.time()
        self.state.silent = {name: now - for_s for name, for_s in silent_parts(waits).items()}
        self.state.stall = stall = cause_of_stall(waits, self.state.parts, now)
        if self._stall_notes.observe(stall, time.monotonic()):
            self.note(stall)
        if self._file is not None:
            self._file.write(self.state.parts_now, stall)

    def note(self, text: str) -> None:
        """A line worth keeping: a stage begun, a warning, a result."""
        if self._live is None:
            self._plain(text)
        else:
            self._live.console.print(Text(text))

    def _plain(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._console.file.flush()
