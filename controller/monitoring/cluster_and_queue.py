"""The dashboard "cluster and queue": parts, Ray, the replay queue's server, the host.

Owns: its panels. Drawn by `controller.monitoring.dashboards`. Must not know: Grafana's schema.
"""

from __future__ import annotations

from controller.monitoring.panels import RATE, RUN, Dashboard, Panel, Query, Row, curves, metric, number, rule

CLUSTER_AND_QUEUE = Dashboard(
    "t2po-cluster-and-queue",
    "t2po: cluster and queue",
    "Do all parts live, does the replay queue flow, and does the host have room?",
    (
        Row(
            "Parts",
            (
                Panel("Who answers", "Whether Prometheus reaches each endpoint.",
                      (Query(f'up{{job=~"t2po|vllm|ray|valkey", {RUN}}}', "{{run}} {{job}} {{part}}"),
                       Query('up{job="node"}', "host {{instance}}")), kind="state", width=24,
                      words=((0, "down", "red"), (1, "up", "green"))),
                Panel("Replaced", "Replacements of each part so far.",
                      (Query(rule("restarts"), "{{run}} {{part}}"),)),
                Panel("Failed attempts", "At trajectories, by reason.",
                      (Query(rule("failed_attempts"), "{{run}} {{reason}}"),)),
                Panel("Cut observations", "Since the start of the controller; longer than env.max_observation_chars.",
                      (Query(f"t2po_cut_observations_total{{{RUN}}}"),)),
                Panel("Start of the controller", "A later time is a resume.",
                      (Query(f'process_start_time_seconds{{job="t2po", {RUN}}} * 1000'),), "dateTimeAsIso",
                      "stat"),
            ),
        ),
        Row(
            "Processes",
            (
                Panel("Memory", "Resident, of the run's processes by role.",
                      (Query(f"1e6 * {rule('process_memory_mb')}", "{{run}} {{role}}"),), "bytes"),
                Panel("Memory that is shared with nobody", "Without files and shared memory: what a leak is seen in.",
                      (Query(f"1e6 * {rule('process_private_mb')}", "{{run}} {{role}}"),), "bytes"),
                Panel("File handles", "Open, by role.", (Query(rule("process_fds"), "{{run}} {{role}}"),)),
                Panel("Threads", "By role.", (Query(rule("process_threads"), "{{run}} {{role}}"),)),
            ),
        ),
        Row(
            "Replay queue",
            (
                Panel("Groups in the queue", "Until they are acknowledged, after a checkpoint; and the bound.",
                      (Query(metric("queue_depth"), "{{run}} in the queue"),
                       Query(f"t2po_queue_bound{{{RUN}}}", "{{run}} bound"))),
                curves("Groups on their way", "groups_ready", "groups_under_way"),
                curves("Foreign entries", "foreign_entries"),
                Panel("Entries of the stream", "As the server has it.",
                      (Query(f"redis_stream_length{{{RUN}}}", "{{run}} in the stream"),
                       Query(f"redis_stream_group_messages_pending{{{RUN}}}", "{{run}} not acknowledged"))),
                Panel("Memory of the server", "Used, and what it may use.",
                      (Query(f"redis_memory_used_bytes{{{RUN}}}", "{{run}} used"),
                       Query(f"redis_memory_max_bytes{{{RUN}}}", "{{run}} may use")), "bytes"),
                Panel("Commands", "A second.", (Query(f"rate(redis_commands_processed_total{{{RUN}}}{RATE})"),)),
            ),
        ),
        Row(
            "Ray",
            (
                Panel("Actors that live", "As the cluster's head counts them.",
                      (Query(f'sum by (run, Name) (ray_actors{{{RUN}, Source="gcs", State="ALIVE"}})',
                             "{{run}} {{Name}}"),)),
                Panel("Memory by process", "Resident: Ray's own processes and each actor's.",
                      (Query(f"sum by (run, Component) (ray_component_rss_bytes{{{RUN}}})", "{{run}} {{Component}}"),),
                      "bytes"),
                Panel("CPU by process", "Cores.",
                      (Query(f"sum by (run, Component) (ray_component_cpu_percentage{{{RUN}}}) / 100",
                             "{{run}} {{Component}}"),)),
                Panel("Object store", "Used and free, a node.",
                      (Query(f"ray_object_store_used_memory{{{RUN}}}", "{{run}} {{NodeAddress}} used"),
                       Query(f"ray_object_store_available_memory{{{RUN}}}", "{{run}} {{NodeAddress}} free")), "bytes"),
                Panel("CPU of the nodes", "Of all cores.",
                      (Query(f"ray_node_cpu_utilization{{{RUN}}} / 100", "{{run}} {{ip}}"),), "percentunit"),
                Panel("Memory of the nodes", "Available.",
                      (Query(f"ray_node_mem_available{{{RUN}}}", "{{run}} {{ip}}"),), "bytes"),
            ),
        ),
        Row(
            "Host",
            (
                Panel("Disk of the run folder", "Free.", (Query(f"t2po_disk_free_bytes{{{RUN}}}"),), "bytes"),
                Panel("Memory", "Share that is available, by node_exporter or by Ray.",
                      (Query("t2po:host_memory_free_ratio", "{{instance}}"),), "percentunit"),
                Panel("CPU", "By what it does; needs node_exporter.",
                      (Query(f'sum by (instance, mode) (rate(node_cpu_seconds_total{{mode!="idle"}}{RATE}))',
                             "{{instance}} {{mode}}"),)),
                Panel("Network", "Bytes a second; needs node_exporter.",
                      (Query(f"sum by (instance) (rate(node_network_receive_bytes_total{RATE}))",
                             "{{instance}} received"),
                       Query(f"sum by (instance) (rate(node_network_transmit_bytes_total{RATE}))",
                             "{{instance}} sent")), "Bps"),
                Panel("Load", "Processes that want a core; needs node_exporter.",
                      (Query("node_load1", "{{instance}}"),)),
                number("Free on the disk", rule("disk_free_ratio"), "Share of the run folder's disk.", "percentunit",
                       width=8),
            ),
        ),
    ),
)  # fmt: skip
