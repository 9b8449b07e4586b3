"""The dashboard "exploration": the uncertainty signal, and what TTI and TDS do with it.

Owns: its panels. Drawn by `controller.monitoring.dashboards`. Must not know: Grafana's schema.
"""

from __future__ import annotations

from controller.monitoring.panels import RATE, RUN, Dashboard, Panel, Query, Row, curves, metric, number

EXPLORATION = Dashboard(
    "t2po-exploration",
    "t2po: exploration",
    "The uncertainty of tokens (M) and of turns (Φ), the thoughts that TTI ends and the turns that TDS samples again.",
    (
        Row(
            "At a glance",
            (
                number("Thoughts cut", metric("forced_share"), "Share of the turns, by TTI.", "percentunit", width=6),
                number("Turns sampled again", metric("resampled_turns"), "Share, by TDS.", "percentunit", width=6),
                number("Tokens saved a turn", metric("tokens_saved"), "An estimate.", width=6),
                number("Repeated turns", metric("repeated_turns"), "Share of the turns.", "percentunit", width=6),
            ),
        ),
        Row(
            "The signal",
            (
                curves("M of tokens", "uncertainty_p10", "uncertainty_p50", "uncertainty_p90", "uncertainty"),
                curves("Φ of turns", "phi_p10", "phi_p50", "phi_p90", "phi"),
                curves("Entropy of tokens", "entropy"),
                curves("Δ of tokens: change of M within a thought", "marginal_change", width=12),
                curves("Γ of turns: change of Φ from turn to turn", "gamma", width=12),
            ),
        ),
        Row(
            "TTI: thoughts that are ended",
            (
                curves("Thoughts ended by force", "interventions"),
                curves("of accepted turns; of these at the hard cap", "forced_share", "forced_by_cap"),
                curves("Thinking tokens cut", "cut_share"),
                curves("Tokens of a thought", "think_tokens"),
                curves("Tokens saved", "tokens_saved"),
                curves("ε, where it is tracked", "tti_epsilon"),
            ),
        ),
        Row(
            "TDS: turns that are sampled again",
            (
                curves("Candidates thrown away", "resamples"),
                curves("Turns sampled again", "resampled_turns"),
                curves("Tokens thrown away", "rejected_tokens"),
                curves("Void trajectories", "void_trajectories"),
                curves("Repeated turns", "repeated_turns"),
                curves("η, where it is tracked", "tds_eta"),
            ),
        ),
        Row(
            "What it costs",
            (
                Panel("Sampled and trained tokens", "A second, by the clock.",
                      (Query(f"rate(t2po_sampled_tokens_total{{{RUN}}}{RATE})", "{{run}} sampled, all candidates"),
                       Query(f"rate(t2po_train_tokens_total{{{RUN}}}{RATE})", "{{run}} trained, prompts included")),
                      width=12),
                Panel("Turns", "Accepted turns a second, by the clock.",
                      (Query(f"rate(t2po_accepted_turns_total{{{RUN}}}{RATE})"),), width=12),
            ),
        ),
    ),
)  # fmt: skip
