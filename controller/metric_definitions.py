"""What each metric means: name, unit, sentence, formula.

Owns: the table that the Prometheus help texts, the live view and docs are made from. Called by
`controller.metrics`, `controller.metrics_endpoint` and `controller.live_view`. Must not know: how a metric
is computed or where it goes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from controller.collapse.finding import DETECTORS
from controller.process_roles import PROCESS_MEASURES, PROCESS_ROLES


@dataclass(frozen=True, slots=True)
class Metric:
    """`counts` True: a step's value is added to a total; otherwise the last value stands. `formula`: of the signals
    that tell a collapse, with its source where there is one."""

    name: str
    unit: str
    sentence: str
    counts: bool = False
    formula: str = ""


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
    Metric(
        "cut_observations", "turns", "Turns whose observation was longer than env.max_observation_chars.", counts=True
    ),
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
    Metric("t_generate_s", "s", "Time of the step in which an engine or an environment was at work."),
    Metric("t_train_s", "s", "Time of the step in which the learner was updating."),
    Metric("t_sync_s", "s", "Time of the step in which weights were on their way or a checkpoint was being written."),
    Metric("overlap_bound_s", "s", "The shortest that the step could be if generation and training overlapped fully."),
    Metric("overlap_share", "share", "The bound over the step's time: 1 is perfect overlap (docs/overlap.md)."),
    Metric("env_actors", "actors", "Environment actors that take trajectories."),
    Metric("inference_servers", "actors", "Inference servers that take turns."),
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
    # the collapse observatory
    Metric("health", "", "0 healthy, 1 warning, 2 collapsed (docs/collapse.md)."),
    *(
        Metric(f"alarms_{name}", "", f"State of the detector {name}: 0 healthy, 1 warning, 2 collapsed.")
        for name in DETECTORS
    ),
    # totals
    Metric("trajectories", "trajectories", "Trajectories trained on.", counts=True),
    Metric("accepted_turns", "turns", "Turns trained on.", counts=True),
    Metric("sampled_tokens", "tokens", "Reply tokens sampled, thrown-away candidates included.", counts=True),
    # the processes of the run
    *(
        Metric(f"{kind}_{role}", unit, f"{sentence} {whose}.")
        for kind, (unit, sentence) in PROCESS_MEASURES.items()
        for role, whose in PROCESS_ROLES.items()
    ),
)

_FORMULAS = {
    "success": "(1/n) Σ_i 1[trajectory i reached the goal]",
    "turns": "(1/n) Σ_i K_i, K_i the turns of trajectory i",
    "reward_std": "(1/G) Σ_g sqrt((1/|g|) Σ_{i∈g} (R_i - R̄_g)²), R_i the summed reward of trajectory i",
    "groups_without_signal": "(1/G) Σ_g 1[max_{i∈g} R_i - min_{i∈g} R_i < 1e-9]",
    "trajectory_tokens": "(1/n) Σ_i Σ_k T_i^k, T_i^k the reply tokens of turn k",
    "invalid": "(1/ΣK_i) Σ_{i,k} 1[reply badly formed, or its action not admissible]",
    "format_invalid": "(1/ΣK_i) Σ_{i,k} 1[reply not in the strict format] (METHOD section 5)",
    "entropy": "mean_t H_t, H_t = -Σ_v p_t(v) ln p_t(v) (METHOD section 2)",
    "uncertainty": "mean_t M_t, M_t = α·H̃_t + (1-α)·(1-C̃_t) (METHOD section 2)",
    "uncertainty_p10": "10% quantile of M_t over sampled tokens (METHOD section 2)",
    "uncertainty_p50": "50% quantile of M_t over sampled tokens (METHOD section 2)",
    "uncertainty_p90": "90% quantile of M_t over sampled tokens (METHOD section 2)",
    "marginal_change": "mean_t Δ_t, Δ_t = |M_t - M_{t-1}|, t inside thoughts (METHOD section 3)",
    "phi": "mean_k Φ^k, Φ^k = (Π_t M_t)^{1/T} = exp(mean_t ln max(M_t, 1e-3)) (METHOD section 4)",
    "phi_p10": "10% quantile of Φ^k over accepted turns (METHOD section 4)",
    "phi_p50": "50% quantile of Φ^k over accepted turns (METHOD section 4)",
    "phi_p90": "90% quantile of Φ^k over accepted turns (METHOD section 4)",
    "gamma": "mean_k Γ^k, Γ^k = |Φ^k - Φ^{k-1}|, k ≥ 2 (METHOD section 4)",
    "repeated_turns": "(1/ΣK_i) Σ_{i,k} 1[(o_i^k, a_i^k) = (o_i^j, a_i^j) for some j < k], o observation, a action",
    "think_tokens": "mean_k of the tokens sampled inside `<think>` of turn k",
    "truncated": "(1/ΣK_i) Σ_{i,k} 1[the reply ended at its length limit]",
    "interventions": "thoughts ended by force, over all candidates / accepted turns (METHOD section 3)",
    "resampled_turns": "(1/ΣK_i) Σ_{i,k} 1[turn k threw a candidate away] (METHOD section 4)",
    "resamples": "candidates thrown away / accepted turns (METHOD section 4)",
    "mismatch_kl": (
        "mean_t k3(ln π_start(t) - ln μ(t)), k3(y) = e^y - 1 - y; π_start the learner before the update, μ "
        "what sampled (Schulman 2020)"
    ),
    "approx_kl": (
        "mean_t k3(ln π(t) - ln π_prox(t)), over the minibatches of the step; π_prox is what sampled, so at "
        'staleness ≤ 1 this is the KL to the previous version, and with correction.proximal = "recomputed" '
        "the learner at the step's start"
    ),
    "reference_kl": "mean_t k3(ln π_ref(t) - ln π(t)), π_ref the policy that the run started from",
    "weight_max": "max_t w_t, w_t = π_start(t)/μ(t), of tokens, or of turns where correction.mask judges turns",
    "weight_ess": "(Σ_t w_t)² / (n Σ_t w_t²) (Kish 1965)",
    "grad_norm": "‖∇L‖₂ over all trained parameters, mean over the updates applied in the step",
    "staleness": "mean_k (v - v^k), v the version in training, v^k the oldest version that sampled turn k",
    "staleness_max": "max_k (v - v^k)",
    "busy_generation": "|union of the spans in which it was busy| / step_s; several may be busy at once",
    "busy_environments": "|union of the spans in which it was busy| / step_s; several may be busy at once",
    "busy_learner": "|union of the spans in which it was busy| / step_s; several may be busy at once",
    "busy_weights": "|union of the spans in which it was busy| / step_s; several may be busy at once",
    "busy_checkpoint": "|union of the spans in which it was busy| / step_s; several may be busy at once",
    "busy_idle": "1 - |union of the spans of all parts| / step_s",
    "t_generate_s": "|G|, G the union of the spans of engines and environments within the step",
    "t_train_s": "|L|, L the union of the learner's spans within the step",
    "t_sync_s": "|S|, S the union of the spans of weights and checkpoint within the step",
    "overlap_bound_s": "max(|G or S|, |L or S|) = max(T_generate, T_train) + T_sync where S overlaps neither",
    "overlap_share": "overlap_bound_s / step_s ≤ 1, because no union of times within the step is longer than it",
    "queue_depth": "entries of the stream that are not acknowledged yet, at the end of the step",
    "wait_s": "seconds between asking for the groups of the step and having all of them",
    "weights_s": "seconds between fetching weights from the learner and the last engine having them",
    "step_s": "seconds from the end of one step to the end of the next; seconds by cause: busy_* times this",
}
"""Of the signals that tell a collapse, as METHOD writes: i trajectories, g groups, k turns, t sampled tokens."""

METRICS = {metric.name: replace(metric, formula=_FORMULAS.get(metric.name, "")) for metric in _TABLE}


def definition(name: str) -> Metric:
    """The metric of this name; an unknown one is passed on under a general sentence."""
    return METRICS.get(name) or Metric(name, "", f"{name}, as its part reported it.")
