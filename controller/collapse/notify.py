"""Telling people: the run's log, and a POST to a webhook.

Owns: `Notifier`, the message. Called by `controller.run_care`. Must not know: when something is worth telling.

The post is a coroutine and no thread: whatever the server does, a deadline ends it, and nothing is left that the end
of the process would wait for.
"""

from __future__ import annotations

import asyncio
import logging
import os
from urllib.parse import urlsplit

from controller.collapse.observatory import Health
from controller.collapse.settings import CollapseSettings

logger = logging.getLogger(__name__)

WEBHOOK = "T2PO_WEBHOOK"


class Notifier:
    """`await tell(health, actions)`, or `begin(health)` where nothing may wait. `failures`: posts that did not arrive,
    a metric of the run."""

    def __init__(self, settings: CollapseSettings, run: str) -> None:
        """`run`: how the run is called in messages."""
        self._url = settings.webhook or os.environ.get(WEBHOOK, "")
        self._timeout_s = settings.webhook_timeout_s
        self._run = run
        self._under_way: set[asyncio.Task[bool]] = set()
        self.failures = 0

    async def tell(self, health: Health, actions: list[str]) -> bool:
        """Logs, and posts where there is a webhook. Whether the post arrived; never raises for one that did not, and
        never takes longer than `webhook_timeout_s`."""
        logger.warning("step %d: %s; doing: %s", health.step, health, ", ".join(actions) or "nothing")
        if not self._url:
            return True
        try:
            async with asyncio.timeout(self._timeout_s):
                await _post(self._url, message(self._run, health, actions))
        except Exception as error:  # whatever a stranger's server makes of it, the run goes on
            self.failures += 1
            logger.warning("the webhook at %s did not take the message: %s", _place(self._url), _reason(error))
            return False
        return True

    def begin(self, health: Health) -> None:
        """`tell` without actions in a task of its own: returns at once. For a run that stands still, which is looked at
        every second; two stalls can be told of at the same time. Only from within the event loop."""
        task = asyncio.get_running_loop().create_task(self.tell(health, []), name="webhook")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def close(self) -> None:
        """Waits for what `begin` began: each has its deadline."""
        await asyncio.gather(*self._under_way)


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


async def _post(url: str, body: dict[str, object]) -> None:
    """The answer's status counts, its content is not read. Proxies are the environment's."""
    import aiohttp  # takes a third of a second, and most runs have no webhook

    async with (
        aiohttp.ClientSession(trust_env=True) as session,
        session.post(url, json=body, raise_for_status=True),
    ):
        pass


def _reason(error: Exception) -> str:
    """Without the words of the HTTP client: they hold the URL."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    status, cause = getattr(error, "status", 0), getattr(error, "os_error", None)
    return f"it answered {status}" if status else f"{type(error).__name__}{f' ({cause.strerror})' if cause else ''}"


def _place(url: str) -> str:
    """The server alone: the rest of the URL may be a secret."""
    try:
        return urlsplit(url).hostname or "?"
    except ValueError:
        return "?"
