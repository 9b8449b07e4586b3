"""A router as the rest of the run depends on it: alive, and told which inference servers there are.

Owns: introducing the servers, telling of a changed one, noticing that Ray restarted the router or that it is
frozen. Called by `controller.cluster`. Must not know: what the router does, who replaces a server.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from controller.causes import cause_of
from controller.deadline import DeadlineError, bounded
from controller.replacements import PartLost, Replacements

logger = logging.getLogger(__name__)


class RouterKeeper:
    """`introduce` after the start, `tell` of every change, `check` again and again."""

    def __init__(
        self,
        name: str,
        router: Any,
        servers: Mapping[str, Any],
        sampling: Mapping[str, Any],
        replacements: Replacements,
        start_timeout_s: float,
        answer_timeout_s: float,
    ) -> None:
        """`servers` is read anew at each introduction: the caller changes it. A router that answers nothing for
        `answer_timeout_s` is taken for frozen and killed; Ray starts it again."""
        self.name = name
        self._router = router
        self._servers = servers
        self._sampling = sampling
        self._replacements = replacements
        self._start_timeout_s = start_timeout_s
        self._answer_timeout_s = answer_timeout_s
        self._introduced_pid: int | None = None
        self._pid: int | None = None
        self._silent_since: float | None = None

    async def introduce(self) -> None:
        """A router that was just (re)started knows no server; turns wait meanwhile."""
        status = await bounded(self._router.status.remote(), self._start_timeout_s, f"{self.name}: status")
        # The pid of before: should the router die right now, the next check sees another one and introduces again.
        self._introduced_pid = self._pid = status["pid"]
        try:
            call = self._router.introduce.remote(dict(self._servers), dict(self._sampling))
            await bounded(call, self._start_timeout_s, f"{self.name}: introducing the inference servers")
        except BaseException:
            self._introduced_pid = None
            raise

    async def tell(self, name: str, actor: Any | None) -> None:
        """Which server there is under `name` now. A router that does not hear it is told all by the next `check`."""
        try:
            call = self._router.replace_server.remote(name, actor)
            await bounded(call, self._answer_timeout_s, f"{self.name}: replacing {name}")
        except Exception as error:  # the boundary that restarts: `check` sees to the router
            logger.warning("%s was not told of %s: %s", self.name, name, cause_of(error))
            self._introduced_pid = None

    async def check(self) -> dict[str, Any] | None:
        """The router's status, None while it is away. Ray restarts it; here it is counted and introduced again."""
        try:
            status: dict[str, Any] = await bounded(
                self._router.status.remote(), self._answer_timeout_s, f"{self.name}: status"
            )
            self._count_restart(status["pid"])
            if self._introduced_pid != status["pid"]:
                await self.introduce()
        except PartLost:
            raise
        except DeadlineError as error:
            logger.warning("%s is killed, Ray starts it again: %s", self.name, cause_of(error))
            self._kill()
            return None
        except Exception as error:  # the boundary that restarts: Ray is at it, and gets as long as at the start
            self._silent_since = self._silent_since or time.monotonic()
            silent_s = time.monotonic() - self._silent_since
            if silent_s > self._start_timeout_s:
                raise PartLost(f"{self.name}: no answer for {silent_s:.0f} s; last: {cause_of(error)}") from error
            return None
        self._silent_since = None
        return status

    def _count_restart(self, pid: int) -> None:
        if self._pid is not None and self._pid != pid:
            logger.warning("%s died and Ray started it again", self.name)
            self._replacements.count(self.name, f"process {self._pid} died")
        self._pid = pid

    def _kill(self) -> None:
        import ray

        ray.kill(self._router, no_restart=False)
