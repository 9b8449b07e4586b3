"""What each metric means: name, unit, sentence.

Owns: the table that the Prometheus help texts, the live view and docs are made from. Called by
`controller.metrics`, `controller.metrics_endpoint` and `controller.live_view`. Must not know: how a metric
is computed or where it goes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """`counts` True: a step's value is added to a total; otherwise the last value stands."""

    name: str
    unit: str
    sentence: str
    counts: bool = False


_TABLE = (
    # what the policy achieves
    Metric("success", "share", "Share of the step's trajectories that reached the goal."),
    Metric("score", "share", "Mean score that the environment gives to what was reached; where it has none, success."),
    Metric("success_moving", "share", "Success, mean over the last steps."),
    Metric("reward", "reward", "Mean total reward of a trajectory."),
    Metric("turns", "turns", "Mean turns of a trajectory."),
    Metric("turns_of_success", "turns", "Mean turns of a trajectory that reached the goal."),
    Metric("reward_std", "reward", "Standard deviation of the total reward within a group, mean over groups."),
    Metric("groups_without_signal", "share", "Share of groups whose trajectories all ended alike."),
    Metric("trajectory_tokens", "tokens", "Mean reply tokens of a trajectory, accepted turns only."),
    Metric("invalid", "share", "Share of turns whose reply is badly formed or names an action that is not admissible."),
    Metric("format_invalid", "share", "Share of turns whose reply is badly formed."),
    # the signal and the two interventions
    Metric("entropy", "nats", "Mean entropy of the next-token distribution over sampled tokens."),
    Metric("uncertainty", "", "Mean M over sampled tokens; high is uncertain."),
    Metric("uncertainty_p10", "", "A tenth of the sampled tokens have a lower M."),
    Metric("uncertainty_p50", "", "Median M of the sampled tokens."),
    Metric("uncertainty_p90", "", "A tenth of the sampled tokens have a higher M."),
    Metric("marginal_change", "", "Mean Δ = |M - M of the token before| over the sampled tokens of thoughts."),
    Metric("phi", "", "Mean Φ of accepted turns: the geometric mean of M over a turn."),
    Metric("phi_p10", "", "A tenth of the accepted turns have a lower Φ."),
    Metric("phi_p50", "", "Median Φ of accepted turns."),
    Metric("phi_p90", "", "A tenth of the accepted turns have a higher Φ."),
    Metric("gamma", "", "Mean Γ of accepted turns: how far Φ moved since the turn before."),
    Metric(
        "repeated_turns",
        "share",
        "Share of turns that repeat an earlier one: the same action at the same sight.",
    ),
    Metric("think_tokens", "tokens", "Mean thinking tokens of a turn."),
    Metric("truncated", "share", "Share of turns whose reply ran into the length limit."),
    Metric("forced_share", "share", "Share of accepted turns whose thought was ended by force."),
    Metric("forced_by_cap", "share", "Share of accepted turns whose thought was ended at the hard cap."),
    Metric("tokens_saved", "per turn", "Thinking tokens a turn that TTI saved by ending thoughts early, estimated."),
    Metric("interventions", "per turn", "Forced ends of thought a turn, candidates that were thrown away included."),
    Metric(
        "cut_share",
        "share",
        "Thinking tokens that TTI cut: from probes where thresholds are tracked, else a high guess.",
    ),
    Metric("tti_epsilon", "", "ε that the step's groups were played under, where it is tracked."),
    Metric("tds_eta", "", "η that the step's groups were played under, where it is tracked."),
    Metric("resampled_turns", "share", "Turns of which at least one candidate was thrown away."),
    Metric("resamples", "per turn", "Candidates thrown away a turn."),
    Metric("rejected_tokens", "per turn", "Tokens of the candidates thrown away a turn."),
    # the update, as the learner reports it
    Metric("mismatch_kl", "nats", "KL of engine and learner on the step's tokens before the update, a token."),
    Metric("mismatch_kl_fresh", "nats", "The same over samples of the present version only: engine and learner alone."),
    Metric("mismatch_log_ratio", "nats", "Mean log-ratio of learner to engine before the update, a token."),
    Metric("approx_kl", "nats", "KL (k3) of the policy that the ratio starts from to the one being trained, a token."),
    Metric("reference_kl", "nats", "KL (k3) of the policy to the reference policy, a token."),
    Metric("log_ratio_abs_max", "nats", "Largest log-ratio of a token."),
    Metric("ratio_mean", "", "Mean ratio of a token."),
    Metric("clip_high_share", "share", "Share of tokens clipped at the upper bound."),
    Metric("clip_low_share", "share", "Share of tokens clipped at the lower bound."),
    Metric("dual_clip_share", "share", "Share of tokens bounded by the dual clip."),
    Metric("policy_loss", "", "Loss of the policy, mean over the step's minibatches."),
    Metric("weight_mean", "", "Mean importance weight: learner at the step's start over what sampled."),
    Metric("weight_max", "", "Largest importance weight."),
    Metric("weight_high_share", "share", "Share of tokens whose importance weight is above correction.mask_high."),
    Metric("weight_low_share", "share", "Share of tokens whose importance weight is below correction.mask_low."),
    Metric(
        "weight_cut_share", "share", "Share of tokens whose importance weight was cut off at correction.weight_max."
    ),
    Metric("weight_ess", "share", "Effective sample size of the importance weights, as a share of the tokens."),
    Metric("masked_share", "share", "Share of sampled tokens that correction.mask leaves out."),
    Metric("groups_dropped", "groups", "Groups that advantage.keep_groups left out.", counts=True),
    Metric("value_loss", "", "Loss of the critic, mean over turns."),
    Metric("value_mean", "reward", "Mean value of a turn before the critic's update."),
    Metric("explained_variance", "share", "Share of the variance of the critic's targets that its values explain."),
    Metric("critic_grad_norm", "", "Global gradient norm of the critic before clipping."),
    Metric(
        "critic_updates_skipped", "updates", "Updates of the critic skipped for a gradient not finite.", counts=True
    ),
    Metric("grad_norm", "", "Global gradient norm before clipping."),
    Metric("lr", "", "Learning rate of the step."),
    Metric("advantage_abs_mean", "", "Mean absolute advantage of a turn."),
    Metric("void_trajectories", "share", 'Trajectories left out for a turn without an action (tds = "void_turn").'),
    Metric("skipped_steps", "steps", "Optimizer steps skipped because the gradient was not finite.", counts=True),
    Metric("train_tokens", "tokens", "Tokens trained on, prompts included.", counts=True),
    Metric("train_tokens_per_s", "tokens/s", "Tokens trained on a second of the learner's time."),
    Metric("train_s", "s", "Time of the learner's step."),
    Metric("padding_share", "share", "Share of the learner's cells that hold padding."),
    # flow
    Metric("staleness", "steps", "Mean optimizer steps between sampling a turn and training on it."),
    Metric("staleness_max", "steps", "Largest staleness of a turn in the step."),
    Metric("tokens_per_s", "tokens/s", "Reply tokens sampled a second over the step."),
    Metric("busy_generation", "share", "Share of the step's time in which an engine was answering a request."),
    Metric("busy_environments", "share", "Share of the step's time in which an environment was made or stepped."),
    Metric("busy_learner", "share", "Share of the step's time in which the learner was updating."),
    Metric("busy_weights", "share", "Share of the step's time in which new weights were not live everywhere yet."),
    Metric("busy_checkpoint", "share", "Share of the step's time in which a checkpoint was being written."),
    Metric("busy_idle", "share", "Share of the step's time in which none of these was going on."),
    Metric("queue_depth", "groups", "Groups in the replay queue."),
    Metric("foreign_entries", "entries", "Entries moved aside from the queue as none of this run's groups, ever."),
    Metric("groups_ready", "groups", "Groups that wait for their step."),
    Metric("groups_under_way", "groups", "Groups whose trajectories are being played."),
    Metric("wait_s", "s", "Time that the learner waited for groups."),
    Metric("weights_s", "s", "Time until new weights were live everywhere."),
    Metric("weights_pause_s", "s", "Longest pause of an engine while it took new weights."),
    Metric("weights_bytes", "bytes", "Bytes of weights sent."),
    Metric("weights_verified", "", "1 when checksums showed that the engines hold what the learner sent."),
    Metric("step_s", "s", "Wall time of the step."),
    Metric("eta_s", "s", "Estimated time until the last step."),
    # totals
    Metric("trajectories", "trajectories", "Trajectories trained on.", counts=True),
    Metric("accepted_turns", "turns", "Turns trained on.", counts=True),
    Metric("sampled_tokens", "tokens", "Reply tokens sampled, thrown-away candidates included.", counts=True),
)

METRICS = {metric.name: metric for metric in _TABLE}


def definition(name: str) -> Metric:
    """The metric of this name; an unknown one is passed on under a general sentence."""
    return METRICS.get(name) or Metric(name, "", f"{name}, as its part reported it.")
