"""The dashboard "throughput and bubbles": where the time goes, in the loop and in the engines.

Owns: its panels. Drawn by `controller.monitoring.dashboards`. Must not know: Grafana's schema.
"""

from __future__ import annotations

from controller.monitoring.panels import RATE, RUN, Dashboard, Panel, Query, Row, curves, metric, number, rule


def _quantile(share: str, name: str) -> Query:
    """Of a histogram of the engines, over all engines of a run."""
    return Query(
        f"histogram_quantile({share}, sum by (run, le) (rate({name}_bucket{{{RUN}}}{RATE})))", f"{{{{run}}}} {share}"
    )


def _by_engine(expr: str) -> str:
    return f"sum by (run, part) ({expr})"


THROUGHPUT = Dashboard(
    "t2po-throughput",
    "t2po: throughput and bubbles",
    "Where the time goes: which part works when, what waits for what, and what the engines do.",
    (
        Row(
            "At a glance",
            (
                number("Step", metric("step_s"), "Wall time of the last one.", "s"),
                number("Sampled tokens a second", metric("tokens_per_s"), "Over the last step."),
                number("Trained tokens a second", metric("train_tokens_per_s"), "Of the learner's time."),
                number("Idle", metric("busy_idle"), "Share of the step: nothing worked.", "percentunit", width=3),
                number("Overlap", metric("overlap_share"), "The bound as a share of the step.", "percentunit", width=3),
                number("The learner waits", rule("wait_ratio"), "Share of the step.", "percentunit", width=3),
                number("Staleness", metric("staleness"), "Mean steps between sampling and training.", width=3),
            ),
        ),
        Row(
            "The loop",
            (
                Panel("Busy parts", "Share of the step's time; several may be busy at once. idle: none is, a bubble.",
                      (Query(rule("busy_ratio"), "{{run}} {{part}}"),), "percentunit", width=12),
                curves("Seconds of a step", "step_s", "train_s", "wait_s", "weights_s", width=12),
                Panel("Overlap", "The bound max(generate, train) + sync as a share of the step's time; 1 is perfect.",
                      (Query(metric("overlap_share")),), "percentunit", width=12),
                curves("Both sides and the bound", "t_generate_s", "t_train_s", "t_sync_s", "overlap_bound_s",
                       "step_s", width=12),
                curves("Tokens a second", "tokens_per_s", "train_tokens_per_s"),
                Panel("Staleness", "Optimizer steps between sampling a turn and training on it, and the bound.",
                      (Query(metric("staleness"), "{{run}} mean"), Query(metric("staleness_max"), "{{run}} largest"),
                       Query(f"t2po_staleness_bound{{{RUN}}}", "{{run}} bound"))),
                curves("Groups", "groups_ready", "groups_under_way"),
                curves("New weights", "weights_s", "weights_pause_s"),
                curves("Weights sent", "weights_bytes"),
                curves("Padding", "padding_share"),
                Panel("Trajectories", "Trained on, a minute, by the clock.",
                      (Query(f"60 * rate(t2po_trajectories_total{{{RUN}}}{RATE})"),)),
                Panel("CPU of the controller", "Cores.",
                      (Query(f'rate(process_cpu_seconds_total{{job="t2po", {RUN}}}{RATE})'),)),
                Panel("Memory of the controller", "Resident.",
                      (Query(f'process_resident_memory_bytes{{job="t2po", {RUN}}}'),), "bytes"),
            ),
        ),
        Row(
            "The engines (vLLM; where inference.metrics_port is set)",
            (
                Panel("Requests", "Under way in each engine, and waiting for a place.",
                      (Query(_by_engine(f"vllm:num_requests_running{{{RUN}}}"), "{{run}} {{part}} running"),
                       Query(_by_engine(f"vllm:num_requests_waiting{{{RUN}}}"), "{{run}} {{part}} waiting"))),
                Panel("Tokens a second", "Of each engine.",
                      (Query(_by_engine(f"rate(vllm:generation_tokens_total{{{RUN}}}{RATE})"),
                             "{{run}} {{part}} generated"),
                       Query(_by_engine(f"rate(vllm:prompt_tokens_total{{{RUN}}}{RATE})"), "{{run}} {{part}} read"))),
                Panel("KV cache", "Share in use.",
                      (Query(f"vllm:kv_cache_usage_perc{{{RUN}}}", "{{run}} {{part}}"),), "percentunit"),
                Panel("Time of a request", "Median and 95% quantile.",
                      (_quantile("0.5", "vllm:e2e_request_latency_seconds"),
                       _quantile("0.95", "vllm:e2e_request_latency_seconds")), "s"),
                Panel("Time to the first token", "Median and 95% quantile.",
                      (_quantile("0.5", "vllm:time_to_first_token_seconds"),
                       _quantile("0.95", "vllm:time_to_first_token_seconds")), "s"),
                Panel("Prefix cache", "Share of the prompt tokens that were found in it.",
                      (Query(_by_engine(f"vllm:prefix_cache_hits_total{{{RUN}}}") + " / "
                             + _by_engine(f"vllm:prefix_cache_queries_total{{{RUN}}}"), "{{run}} {{part}}"),),
                      "percentunit"),
                Panel("Preemptions", "Requests put back for want of cache, a second.",
                      (Query(_by_engine(f"rate(vllm:num_preemptions_total{{{RUN}}}{RATE})"), "{{run}} {{part}}"),)),
                Panel("Memory of the engines' actors", "Resident; of the actor, not of the engine core that it starts.",
                      (Query(f'process_resident_memory_bytes{{job="vllm", {RUN}}}', "{{run}} {{part}}"),), "bytes"),
            ),
        ),
    ),
)  # fmt: skip
