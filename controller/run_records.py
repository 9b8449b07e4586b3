"""What a life of a run writes down, and where its steps are shown: audit, metrics, Prometheus endpoint, live view.

Owns: `RunRecords`, the order in which a step is recorded, the endpoint's restarts. Called by `controller.training_run`.
Must not know: how a step came about, what follows from it.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from controller.audit import AuditLog
from controller.config import RunConfig
from controller.live_view import LiveView
from controller.metrics import MetricsError, MetricsLog, StepMetrics, read_metrics
from controller.metrics_endpoint import MetricsEndpoint, open_endpoint
from controller.replacements import PartLost
from controller.restart_budget import RestartBudget
from controller.run_facts import run_facts
from controller.run_folder import RunFolder
from controller.update import StepOutcome

logger = logging.getLogger(__name__)

ENDPOINT = "metrics endpoint"


class RunRecords:
    """`serve` at once, `take_up` when it is known where the run stands, then `step` after every step."""

    def __init__(self, config: RunConfig, folder: RunFolder, view: LiveView) -> None:
        self._config = config
        self._folder = folder
        self._view = view
        self._budget = RestartBudget(config.supervision)
        self._endpoint: MetricsEndpoint | None = None
        self._reopen_at = 0.0
        self._cause = "its thread ended"
        self._audit: AuditLog
        self._metrics: MetricsLog

    def serve(self) -> None:
        """MetricsError when the port is taken."""
        self._endpoint = open_endpoint(self._config.metrics.port, run_facts(self._folder))

    def take_up(self, done: int, *, resumed: bool) -> list[tuple[int, dict[str, float]]]:
        """Opens the files; the steps that are behind, with their metrics. What is later than `done` never was."""
        self._audit = AuditLog(self._folder.audit, done if resumed else None)
        self._metrics = MetricsLog(self._folder.metrics, done if resumed else None)
        earlier = [(step.step, step.values) for step in read_metrics(self._folder.metrics)]
        if self._endpoint and done:
            self._endpoint.resume(done, earlier[-1][1] if earlier else None)
        return earlier

    def step(self, number: int, values: dict[str, float]) -> None:
        """The metrics of a step that is done, everywhere."""
        step = StepMetrics(step=number, values=values)
        self._metrics.write(step)
        if self._endpoint:
            self._endpoint.observe(step)
        self._view.step(number, values)

    def trained(self, number: int, outcome: StepOutcome) -> None:
        """What became of the groups that step `number` took."""
        for group in outcome.trained:
            self.note("trained", number, group=group.id, trajectories=[one.id for one in group.trajectories])
        for group in outcome.dropped:
            self.note("dropped", number, group=group.id, reason=f"keep_groups = {self._config.advantage.keep_groups}")

    def note(self, event: str, step: int, **fields: Any) -> None:
        """One event of the audit."""
        self._audit.write(event, **fields, step=step)

    def beat(self) -> None:
        """Every second: the endpoint shows that the loop comes round, and is opened again when it has ended. PartLost
        when that was needed too often."""
        if self._endpoint is None:
            return
        self._endpoint.beat()
        if not self._endpoint.serves:
            self._reopen(self._endpoint)

    def close(self) -> None:
        for one in (getattr(self, "_metrics", None), getattr(self, "_audit", None), self._endpoint):
            if one is not None:
                one.close()
        self._endpoint = None  # it is not to be opened again

    def _reopen(self, endpoint: MetricsEndpoint) -> None:
        now = time.monotonic()
        if now < self._reopen_at:
            return
        pause_s = self._budget.spend()
        if pause_s is None:
            raise PartLost(f"{ENDPOINT} is not opened again, the budget is {self._budget}; last: {self._cause}")
        logger.warning("%s: %s; opened again, %d of %s", ENDPOINT, self._cause, self._budget.num_spent, self._budget)
        try:
            endpoint.reopen()
        except MetricsError as error:  # the boundary that retries: later, within the budget
            self._cause = str(error)
            self._reopen_at = now + max(pause_s, self._config.supervision.restart_pause_s)
