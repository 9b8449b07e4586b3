"""An independent account of METHOD sections 2 to 4: one reply at a time, float64, plain Python, text for the markers.

It shares nothing with `actors.uncertainty` but the constants that METHOD leaves open.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

OPEN, CLOSE = "<think>", "</think>"
PHI_FLOOR, LOG_P_FLOOR, DEGENERATE, PEAK_TOLERANCE = 1e-3, -100.0, 1e-6, 1e-4


@dataclass
class OracleReply:
    tokens: list[int] = field(default_factory=list)
    entropy: list[float] = field(default_factory=list)
    m: list[float] = field(default_factory=list)
    forced: list[bool] = field(default_factory=list)
    fired: str = ""
    fired_at: int = -1
    num_think_tokens: int = 0
    signal_range: list[float] = field(default_factory=list)
    smallest_margin: float = math.inf  # how near a decision ever was to going the other way
    smallest_span: float = math.inf  # the smallest range that M was normalised by
    release: bool = False

    @property
    def phi(self) -> float:
        if self.release:
            known = [m for m in self.m if not math.isnan(m)]
            return sum(known) / len(known) if known else math.nan
        values = [max(m, PHI_FLOOR) for m in self.m if not math.isnan(m)]
        return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


def entropy_and_confidence(logits: Sequence[float], top_j: int) -> tuple[float, float]:
    values = np.asarray(logits, np.float64)
    if np.isnan(values).any() or np.isposinf(values).any() or np.isneginf(values).all():
        return math.nan, math.nan
    with np.errstate(over="ignore", under="ignore", divide="ignore"):
        shifted = values - values.max()
        log_p = shifted - np.log(np.exp(shifted).sum())
        p = np.exp(log_p)
        entropy = -float(sum(a * b for a, b in zip(p, log_p, strict=True) if a > 0))
    top = np.sort(np.maximum(log_p, LOG_P_FLOOR))[::-1][:top_j]
    return entropy, -float(top.mean())


def reply(
    logits_at: Callable[[int], Sequence[float]],
    sample: Callable[[int, np.ndarray], int],
    pieces: Sequence[str],
    queue: Sequence[int],
    *,
    max_tokens: int,
    eos: int = -1,
    tti: str = "paper",
    signal: str = "paper",
    alpha: float = 0.4,
    epsilon: float = 0.05,
    window: int = 3,
    min_tokens: int = 6,
    think_cap: int = 40,
    top_j: int = 20,
    before: Sequence[float] = (math.inf, -math.inf, math.inf, -math.inf),
) -> OracleReply:
    """A whole reply. `sample(position, logits)` draws a token from logits that may have been forced."""
    out = OracleReply(release=signal == "release")
    alpha = {"entropy": 1.0, "confidence": 0.0}.get(signal, alpha)
    e_min, e_max, c_min, c_max = before
    thought: list[float] = []  # M at each thinking position; NaN: not measured
    pending: list[int] = []
    for position in range(max_tokens):
        text = "".join(pieces[t] for t in out.tokens)
        opened = text.find(OPEN)
        body = text[opened + len(OPEN) :] if opened >= 0 else None
        inside = body is not None and CLOSE not in body
        logits = np.asarray(logits_at(position), np.float64)
        entropy, confidence = entropy_and_confidence(logits, top_j)
        measured = not math.isnan(entropy)
        new = (e_min, e_max, c_min, c_max)
        m = math.nan
        if measured:
            new = (min(e_min, entropy), max(e_max, entropy), min(c_min, confidence), max(c_max, confidence))

            def level(value: float, low: float, high: float) -> float:
                if high - low > DEGENERATE / 10:
                    out.smallest_span = min(out.smallest_span, high - low)
                return 0.5 if high - low < DEGENERATE else (value - low) / (high - low)

            if signal == "release":
                log_max = -entropy_and_confidence(logits, 1)[1]
                m = 0.6 * log_max + 0.4 * (1 - entropy / math.log(len(pieces)))
            else:
                m = alpha * level(entropy, new[0], new[1]) + (1 - alpha) * (1 - level(confidence, new[2], new[3]))
        token = None
        if not pending and inside and not out.fired and tti != "off" and position + len(queue) <= max_tokens:
            series = [*thought, m]
            last = series[-(window + 2) :]
            reason = ""
            partial = any(body.endswith(CLOSE[:k]) for k in range(1, len(CLOSE)))
            if tti == "budget":
                pass
            elif signal == "release":
                run = series[-21:]
                steps = [abs(b - a) for a, b in itertools.pairwise(run)]
                if len(steps) == 20 and not any(map(math.isnan, run)) and len(thought) >= min_tokens and not partial:
                    out.smallest_margin = min([out.smallest_margin, *(abs(step - 1e-4) for step in steps)])
                    if all(step <= 1e-4 for step in steps):
                        reason = "uncertainty"
            elif len(last) == window + 2 and not any(map(math.isnan, last)):
                mean = sum(abs(b - a) for a, b in itertools.pairwise(last)) / (window + 1)
                measured_places = [i for i, value in enumerate(series) if not math.isnan(value)]
                top = max(series[i] for i in measured_places)
                peak = max(i for i in measured_places if series[i] >= top - PEAK_TOLERANCE)
                if len(thought) >= min_tokens and not partial:
                    out.smallest_margin = min(out.smallest_margin, abs(mean - epsilon))
                    gaps = [abs(series[i] - top + PEAK_TOLERANCE) for i in measured_places]
                    out.smallest_margin = min([out.smallest_margin, *gaps])
                    if mean < epsilon and len(series) - 1 - window > peak:
                        reason = "uncertainty"
            if not reason and len(thought) >= think_cap:
                reason = "cap"
            if reason:
                out.fired, out.fired_at = reason, position
                pending = list(queue)
        if pending:
            token = pending.pop(0)
            out.forced.append(True)
            out.entropy.append(math.nan)
            out.m.append(math.nan)
        else:
            e_min, e_max, c_min, c_max = new
            token = sample(position, logits)
            out.forced.append(False)
            out.entropy.append(entropy)
            out.m.append(m)
            if inside:
                thought.append(m)
        out.tokens.append(token)
        if token == eos:
            break
    out.signal_range = [e_min, e_max, c_min, c_max]
    out.num_think_tokens = _thinking(out.tokens, pieces)
    return out


def _thinking(tokens: Sequence[int], pieces: Sequence[str]) -> int:
    """Tokens that begin after the opening marker's end and before the closing marker's begin (or the end)."""
    text = "".join(pieces[t] for t in tokens)
    opened = text.find(OPEN)
    if opened < 0:
        return 0
    first = opened + len(OPEN)
    closed = text.find(CLOSE, first)
    count = place = 0
    for token in tokens:
        end = place + len(pieces[token])
        before_close = closed < 0 or end <= closed
        count += place >= first and before_close
        place = end
    return count
