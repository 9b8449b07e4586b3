"""The Prometheus endpoint of a run, on loopback.

Owns: the collectors of one run and the server that hands them out. Called by the training loop. Must not
know: how metrics are computed.
"""

from __future__ import annotations

import re
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from controller.metric_definitions import definition
from controller.metrics import MetricsError, StepMetrics

ADDRESS = "127.0.0.1"


class MetricsEndpoint:
    """`http://127.0.0.1:PORT/metrics`: gauges `t2po_<name>`, totals `t2po_<name>_total`, a heartbeat."""

    def __init__(self, port: int) -> None:
        self._registry = CollectorRegistry()
        self._counters: dict[str, Counter] = {}
        self._step = Gauge("t2po_step", "Optimizer steps done.", registry=self._registry)
        self._heartbeat = Gauge(
            "t2po_heartbeat_timestamp_seconds",
            "When the training loop last came round; it stands still when the loop does.",
            registry=self._registry,
        )
        # in the same table as the others, so that a metric of the same name sets it instead of colliding
        self._gauges = {"t2po_step": self._step, "t2po_heartbeat_timestamp_seconds": self._heartbeat}
        try:
            self._server, self._thread = start_http_server(port, addr=ADDRESS, registry=self._registry)
        except OSError as error:
            raise MetricsError(
                f"metrics.port = {port}: cannot serve metrics on {ADDRESS}:{port} ({error.strerror or error}); "
                "end the program that uses the port, choose another one, or set metrics.port=0 to do without"
            ) from error
        self.beat()

    def beat(self) -> None:
        """Called each time the training loop comes round, also between steps."""
        self._heartbeat.set(time.time())

    def observe(self, step: StepMetrics) -> None:
        """Take over one step's numbers."""
        self._step.set(step.step)
        for name, value in step.values.items():
            metric = definition(name)
            key = "t2po_" + re.sub(r"[^a-zA-Z0-9_]", "_", name)
            sentence = f"{metric.sentence} [{metric.unit}]" if metric.unit else metric.sentence
            if metric.counts:
                if key not in self._counters:
                    self._counters[key] = Counter(key, sentence, registry=self._registry)
                if value > 0:  # false for NaN too
                    self._counters[key].inc(value)
            else:
                if key not in self._gauges:
                    self._gauges[key] = Gauge(key, sentence, registry=self._registry)
                self._gauges[key].set(value)
        self.beat()

    def close(self) -> None:
        """Stop serving; returns when the port is free."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)


def open_endpoint(port: int) -> MetricsEndpoint | None:
    """The endpoint that `metrics.port` asks for; None when it is 0."""
    return MetricsEndpoint(port) if port else None
