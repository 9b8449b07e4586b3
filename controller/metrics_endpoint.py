"""The Prometheus endpoint of a run, on loopback.

Owns: the collectors of one run and the server that hands them out. Called by the training loop. Must not
know: how metrics are computed.

Totals count from the start of the process: after a resume they begin at 0 again, which is what `rate()` and
`increase()` expect of a counter. Taken up where the checkpoint has them they would fall by the steps that a kill
lost, and Prometheus would add the whole total once more.
"""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, start_http_server
from prometheus_client.metrics_core import Metric

from controller.metric_definitions import METRICS, definition
from controller.metrics import MetricsError, StepMetrics
from controller.run_facts import RunFacts

ADDRESS = "127.0.0.1"

ALWAYS = {
    "t2po_step": "Optimizer steps done.",
    "t2po_heartbeat_timestamp_seconds": "When the training loop last came round; it stands still when the loop does.",
    "t2po_last_step_timestamp_seconds": "When the last optimizer step ended; before the first, when the run came up.",
}
FROM_FACTS = {
    "t2po_steps_planned": "Optimizer steps that the run is to do (steps).",
    "t2po_staleness_bound": "Optimizer steps that a group may be behind when trained (rollout.max_staleness).",
    "t2po_queue_bound": "Groups that the replay queue holds at most (queue.max_groups).",
    "t2po_disk_free_bytes": "Free space on the disk of the run folder.",
    "t2po_disk_size_bytes": "Size of the disk of the run folder.",
}
INFO = "t2po_run_info"
"""Always 1; its labels say what the run is."""


class MetricsEndpoint:
    """`http://127.0.0.1:PORT/metrics`: gauges `t2po_<name>`, totals `t2po_<name>_total`, a heartbeat, the run's facts,
    and `process_*` of the controller. A scrape sees a step's numbers all or not at all."""

    def __init__(self, port: int, facts: RunFacts | None = None) -> None:
        self._whole = threading.Lock()
        self._folder = facts.folder if facts else None
        self._registry = _Registry(self._whole, self._measure_disk)
        ProcessCollector(registry=self._registry)
        self._counters: dict[str, Counter] = {}
        for metric in METRICS.values():
            if metric.counts:  # at 0 from the start, or Prometheus would not see the first increase
                self._counter(metric.name)
        # in one table with those of the steps, so that a metric of the same name sets it instead of colliding
        texts = {**ALWAYS, **(FROM_FACTS if facts else {})}
        self._gauges = {name: Gauge(name, text, registry=self._registry) for name, text in texts.items()}
        if facts:
            Gauge(INFO, "What the run is, in its labels.", list(facts.labels), registry=self._registry).labels(
                **facts.labels
            ).set(1)
            self._gauges["t2po_steps_planned"].set(facts.num_steps)
            self._gauges["t2po_staleness_bound"].set(facts.max_staleness)
            self._gauges["t2po_queue_bound"].set(facts.queue_max_groups)
        self._port = port
        self._serve()
        self._gauges["t2po_last_step_timestamp_seconds"].set_to_current_time()
        self.beat()

    def beat(self) -> None:
        """Called each time the training loop comes round, also between steps."""
        self._gauges["t2po_heartbeat_timestamp_seconds"].set_to_current_time()

    def resume(self, step: int, values: Mapping[str, float] | None = None) -> None:
        """A run goes on after `step`; `values` are the metrics of that step. Gauges show them until the next step is
        done, instead of 0 or nothing; totals are not touched."""
        with self._whole:
            self._gauges["t2po_step"].set(step)
            for name, value in (values or {}).items():
                if not definition(name).counts:
                    self._gauge(name).set(value)

    def observe(self, step: StepMetrics) -> None:
        """Take over one step's numbers."""
        with self._whole:
            for name, value in step.values.items():
                if definition(name).counts:
                    counter = self._counter(name)
                    if value > 0:  # false for NaN too
                        counter.inc(value)
                else:
                    self._gauge(name).set(value)
            self._gauges["t2po_step"].set(step.step)
            self._gauges["t2po_last_step_timestamp_seconds"].set(time.time())
        self.beat()

    @property
    def serves(self) -> bool:
        """False once its thread has ended, whatever ended it."""
        return self._thread.is_alive()

    def reopen(self) -> None:
        """Serves again, the same numbers on the same port. MetricsError when the port was taken meanwhile."""
        self._server.server_close()
        self._serve()

    def _serve(self) -> None:
        port = self._port
        try:
            self._server, self._thread = start_http_server(port, addr=ADDRESS, registry=self._registry)
        except OSError as error:
            raise MetricsError(
                f"metrics.port = {port}: cannot serve metrics on {ADDRESS}:{port} ({error.strerror or error}); "
                "end the program that uses the port, choose another one, or set metrics.port=0 to do without"
            ) from error

    def close(self) -> None:
        """Stop serving; returns when the port is free."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)

    def _gauge(self, name: str) -> Gauge:
        key = exported_name(name)
        if key not in self._gauges:
            self._gauges[key] = Gauge(key, _help(name), registry=self._registry)
        return self._gauges[key]

    def _counter(self, name: str) -> Counter:
        if name not in self._counters:
            key = exported_name(name).removesuffix("_total")
            self._counters[name] = Counter(key, _help(name), registry=self._registry)
        return self._counters[name]

    def _measure_disk(self) -> None:
        usage = _disk_usage(self._folder) if self._folder else None
        if usage:
            self._gauges["t2po_disk_size_bytes"].set(usage[0])
            self._gauges["t2po_disk_free_bytes"].set(usage[1])


class _Registry(CollectorRegistry):
    """Measures the disk, then collects with no step half written."""

    def __init__(self, whole: threading.Lock, measure: Callable[[], None]) -> None:
        super().__init__()
        self._whole = whole
        self._measure = measure

    def collect(self) -> Iterable[Metric]:
        self._measure()
        with self._whole:
            return iter(list(super().collect()))


def exported_name(name: str) -> str:
    """A step metric's name as Prometheus sees it: `success` -> `t2po_success`, of a total `t2po_trajectories_total`."""
    key = "t2po_" + re.sub(r"[^a-zA-Z0-9_]", "_", name)
    return f"{key}_total" if definition(name).counts else key


def open_endpoint(port: int, facts: RunFacts | None = None) -> MetricsEndpoint | None:
    """The endpoint that `metrics.port` asks for; None when it is 0."""
    return MetricsEndpoint(port, facts) if port else None


def _help(name: str) -> str:
    metric = definition(name)
    return f"{metric.sentence} [{metric.unit}]" if metric.unit else metric.sentence


def _disk_usage(folder: Path) -> tuple[int, int] | None:
    """Size and free bytes; None while the disk does not answer, so that a scrape never fails for it."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return usage.total, usage.free
