"""Telling people: the run's log, and a POST to a webhook.

Owns: `Notifier`, the message. Called by the training loop. Must not know: when something is worth telling.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from controller.collapse.observatory import Health
from controller.collapse.settings import CollapseSettings

logger = logging.getLogger(__name__)

WEBHOOK = "T2PO_WEBHOOK"


class Notifier:
    """`await tell(health, actions)`. `failures`: posts that did not arrive, a metric of the run."""

    def __init__(self, settings: CollapseSettings, run: str) -> None:
        """`run`: how the run is called in messages."""
        self._url = settings.webhook or os.environ.get(WEBHOOK, "")
        self._timeout_s = settings.webhook_timeout_s
        self._run = run
        self.failures = 0

    async def tell(self, health: Health, actions: list[str]) -> bool:
        """Logs, and posts where there is a webhook. Whether the post arrived; never raises for one that did not, and
        never takes longer than `webhook_timeout_s`."""
        logger.warning("step %d: %s; doing: %s", health.step, health, ", ".join(actions) or "nothing")
        if not self._url:
            return True
        try:
            post = asyncio.to_thread(_post, self._url, message(self._run, health, actions), self._timeout_s)
            await asyncio.wait_for(post, self._timeout_s)
        except Exception as error:  # whatever a stranger's server makes of it, the run goes on
            self.failures += 1
            logger.warning("the webhook at %s did not take the message: %r", _place(self._url), error)
            return False
        return True


def message(run: str, health: Health, actions: list[str]) -> dict[str, object]:
    """What is posted. `text` is what chat servers show."""
    return {
        "text": f"t2po {run}, step {health.step}: {health}",
        "run": run,
        "step": health.step,
        "level": str(health.level),
        "since": health.since,
        "causes": list(health.causes),
        "actions": actions,
    }


def _post(url: str, body: dict[str, object], timeout_s: float) -> None:
    request = urllib.request.Request(
        url, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:
        answer.read(65536)


def _place(url: str) -> str:
    """The server alone: the rest of the URL may be a secret."""
    return urlsplit(url).hostname or "?"
