"""A run in a few words: what was trained, how far it is, what came of it.

Owns: the sentences of the page's head. Called by `controller.report.collection`. Must not know: files, HTML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from controller.report.curves import Column, mean_of
from controller.report.events import HEALTH

ENDS = 5
"""Steps at either end of a run that are compared where nothing was evaluated."""


def method_of(config: Mapping[str, Any]) -> str:
    """The interventions of a run in words, from its flat configuration."""

    def acts(part: str) -> bool:
        return bool(config.get(f"{part}.enabled", False)) and config.get(f"{part}.variant", "paper") != "off"

    tti, tds = acts("tti"), acts("tds")
    names = [config.get(f"{part}.variant", "paper") for part, on in (("tti", tti), ("tds", tds)) if on]
    if tti and tds and set(names) == {"paper"}:
        return "T²PO"
    words = [
        f"{part.upper()} ({config.get(f'{part}.variant', 'paper')})" for part, on in (("tti", tti), ("tds", tds)) if on
    ]
    return " + ".join(words) if words else "no interventions"


def algorithm_of(config: Mapping[str, Any]) -> str:
    """The algorithm's name; a run without a preset is called by its advantage estimator."""
    return str(config.get("algorithm") or config.get("advantage.estimator") or "gigpo")


def adjusted_knobs(
    config: Mapping[str, Any], adjustments: Sequence[Mapping[str, Any]]
) -> list[tuple[int, str, str, str, str]]:
    """(step, knob, old value, new value, cause) of what was changed while the run went on, in that order. `config`:
    flat. What cannot be read is left out."""
    now, found = dict(config), []
    for row in adjustments:
        step, changes = row.get("step"), row.get("changes")
        if isinstance(step, int) and isinstance(changes, dict):
            for knob, value in changes.items():
                found.append((step, knob, str(now.get(knob, "?")), str(value), str(row.get("cause", ""))))
                now[knob] = value
    return found


def sentences(
    config: Mapping[str, Any],
    num_done: int,
    columns: Mapping[str, Column],
    evaluations: Sequence[Mapping[str, Any]],
    trouble: str = "",
) -> list[str]:
    """What a person should know of the run in ten seconds. `trouble`: what went wrong and was dealt with."""
    total = config.get("steps")
    found = [f"{num_done} of {total} steps are done." if isinstance(total, int) else f"{num_done} steps are done."]
    if num_done == 0:
        return ["No step is done yet.", *_evaluated(evaluations)]
    found = [*(_evaluated(evaluations) or _trained(columns.get("success", []))), *_interventions(columns), *found]
    if trouble:
        found.append(f"Dealt with: {trouble}.")
    health = [value for value in columns.get("health", []) if value is not None]
    if health and int(health[-1]) in range(1, len(HEALTH)):
        found.insert(0, f"Its health is: {HEALTH[int(health[-1])]}.")
    return found


def _evaluated(evaluations: Sequence[Mapping[str, Any]]) -> list[str]:
    """Before against the newest one: the same panel, played with the same share of interventions."""
    rows = [row for row in evaluations if {"success", "interval", "panel", "version", "label"} <= row.keys()]
    ours = [row for row in rows if row["label"] in ("before", "during", "after")]
    if not ours:
        return []
    last = max(ours, key=lambda row: (row["version"], row["label"] == "after"))
    first = next((row for row in ours if row["label"] == "before" and row["panel"] == last["panel"]), None)
    where = f"on {last.get('played', '?')} tasks of the panel {last['panel']}"
    if first is None or first is last:
        return [f"Success {where} is {_with_interval(last)} after {last['version']} steps."]
    low, high = first["interval"][0], first["interval"][1]
    if last["interval"][0] > high:
        verdict, word = "the intervals do not touch", "rose"
    elif last["interval"][1] < low:
        verdict, word = "the intervals do not touch", "fell"
    else:
        verdict, word = "the intervals overlap", "went"
    return [f"Success {where} {word} from {_with_interval(first)} to {_with_interval(last)}; {verdict}."]


def _with_interval(row: Mapping[str, Any]) -> str:
    low, high = row["interval"]
    return f"{row['success']:.1%} [{low:.1%}, {high:.1%}]"


def _trained(success: Column) -> list[str]:
    first, last = mean_of(success[:ENDS]), mean_of(success[-ENDS:])
    if first is None or last is None:
        return []
    if len(success) <= ENDS:
        return [f"Success in training is {last:.1%}; nothing was evaluated."]
    return [f"Success in training went from {first:.1%} (first {ENDS} steps) to {last:.1%} (last {ENDS} steps)."]


def _interventions(columns: Mapping[str, Column]) -> list[str]:
    cut = mean_of(columns.get("forced_share", [])[-ENDS:])
    again = mean_of(columns.get("resampled_turns", [])[-ENDS:])
    if not cut and not again:
        return []
    return [f"Of the last turns, {cut or 0:.0%} had their thought ended and {again or 0:.0%} were sampled again."]
