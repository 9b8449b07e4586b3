"""The dashboard "training health": does the run learn, and does it stay sound?

Owns: its panels. Drawn by `controller.monitoring.dashboards`. Must not know: Grafana's schema.
"""

from __future__ import annotations

from controller.monitoring.panels import RUN, Dashboard, Panel, Query, Row, curves, metric, number, rule

STATES = ((0, "healthy", "green"), (1, "warning", "orange"), (2, "collapsed", "red"))

TRAINING_HEALTH = Dashboard(
    "t2po-training-health",
    "t2po: training health",
    "Does the run learn, and does it stay sound? Success, the signals of a collapse, and what the detectors say.",
    (
        Row(
            "State",
            (
                Panel("Health", "What the collapse detectors say.", (Query(metric("health")),), kind="stat", width=4,
                      words=STATES),
                number("Steps done", rule("progress_ratio"), "Share of the planned optimizer steps.", "percentunit"),
                number("Success", metric("success_moving"), "Mean over the last ten steps.", "percentunit"),
                number("Time to go", metric("eta_s"), "Estimated time until the last step.", "s"),
                number("Heartbeat", rule("heartbeat_age_seconds"), "Since the training loop last came round.", "s"),
                number("Alerts", f'count(ALERTS{{alertstate="firing", {RUN}}}) or vector(0)', "Firing now.", legend=""),
                Panel("Detectors", "State of each collapse detector.",
                      (Query(rule("alarms"), "{{run}} {{detector}}"),), kind="state", width=24, words=STATES),
            ),
        ),
        Row(
            "What the policy achieves",
            (
                curves("Success", "success", "success_moving"),
                curves("Score", "score"),
                curves("Reward", "reward", "reward_std"),
                curves("Turns", "turns", "turns_of_success"),
                curves("Tokens of a trajectory", "trajectory_tokens"),
                curves("Groups without a signal", "groups_without_signal"),
                curves("Replies that do not work", "invalid", "format_invalid", "truncated"),
                curves("Repeated turns", "repeated_turns"),
                curves("Tokens of a thought", "think_tokens"),
            ),
        ),
        Row(
            "The update",
            (
                curves("Entropy", "entropy"),
                curves("KL to what sampled, and of the update", "mismatch_kl", "mismatch_kl_fresh", "approx_kl"),
                curves("KL to the reference", "reference_kl"),
                curves("Gradient norm", "grad_norm", "critic_grad_norm"),
                curves("Learning rate", "lr"),
                curves("Clipped tokens", "clip_high_share", "clip_low_share", "dual_clip_share"),
                curves("Effective sample size", "weight_ess"),
                curves("Largest importance weight", "weight_max"),
                curves("Tokens that the correction cut or left out", "weight_cut_share", "masked_share"),
                curves("Policy loss", "policy_loss"),
                curves("Critic", "value_loss", "explained_variance"),
                Panel("Skipped updates", "Updates with a gradient that is not finite, an hour.",
                      (Query(f"increase(t2po_skipped_steps_total{{{RUN}}}[1h])", "{{run}} policy"),
                       Query(f"increase(t2po_critic_updates_skipped_total{{{RUN}}}[1h])", "{{run}} critic"))),
            ),
        ),
    ),
)  # fmt: skip
