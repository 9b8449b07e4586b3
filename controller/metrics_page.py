"""The metrics in words: every signal with unit, meaning and formula, as a Markdown page.

Owns: the text of docs/metrics.md. Called by `t2po metrics`. Must not know: how a metric is computed.
"""

from __future__ import annotations

from controller.metric_definitions import METRICS

_PAGE = """\
# Metrics

A step's numbers are a line of `metrics.jsonl` in the run's folder (null: not measured) and `t2po_<name>` at the
Prometheus endpoint; a total is `t2po_<name>_total` there. M, Φ, Γ, H and C are those of the paper: M is the uncertainty
of a token, Φ that of a turn. What the collapse observatory makes of them is in [collapse.md](collapse.md).

In the formulas: i trajectories, g groups of siblings, k turns, t sampled tokens of accepted candidates; n trajectories
in G groups, K_i turns and R_i summed reward of trajectory i; π is the policy in training, μ what sampled.

This page is generated: `t2po metrics > docs/metrics.md`.

| metric | unit | meaning | formula |
|---|---|---|---|
"""


def as_markdown() -> str:
    """Every metric of the table, in its order."""
    rows = []
    for metric in METRICS.values():
        unit = f"{metric.unit}, total" if metric.counts else metric.unit
        cells = (f"`{metric.name}`", unit, metric.sentence, metric.formula)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return _PAGE + "\n".join(rows) + "\n"
