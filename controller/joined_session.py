"""A run inside a Ray that runs already: joined with its token, left again, with nothing of the run left in it.

Owns: `JoinedSession`, which has the interface of `controller.ray_session.RaySession`, and which of the two a run gets.
Called by `controller.cluster`. Must not know: which actors run in it, who brought the cluster up.

The run's actors are not detached: they end with the run's process, however that ends, and an engine ends with its actor
(`actors.parent_watch`). So nothing is recorded, and a kill -9 needs no reaper. Each run has a namespace of its own.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from pathlib import Path

from controller.causes import cause_of
from controller.cluster_access import Access, AccessError, find_access, probe, use_token
from controller.cluster_settings import AUTO
from controller.ray_session import RaySession, metrics_addresses
from controller.run_log import LOG_FILE
from controller.start_guard import StartGuard

logger = logging.getLogger(__name__)

GONE_WITHIN_S = 30.0
"""So long the run's actors get to end after it has left."""
LOOK_EVERY_S = 0.2


def session_for(address: str, run_folder: Path | None, object_store_bytes: int) -> RaySession | JoinedSession:
    """By `cluster.address`: a private Ray, or one that is joined."""
    return JoinedSession(address, run_folder) if address else RaySession(run_folder, object_store_bytes)


class JoinedSession:
    """Start it once, stop it once; `stop` is safe to call at any time and more than once."""

    def __init__(self, address: str, run_folder: Path | None) -> None:
        self._address = address
        self._name = run_folder.name if run_folder else "play"
        self._log = run_folder and run_folder / LOG_FILE
        self._access: Access | None = None
        self._job = ""

    def start(self) -> None:
        """Joins. AccessError or ClusterError names what is wrong: nobody there, another token, another version."""
        access = find_access(self._address)
        probe(access.address)
        use_token(access.token)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")
        if access.address != AUTO:  # a wrong token is found here in a moment; `ray.init` says it in a page
            from controller.local_cluster.ray_nodes import RayNodes

            RayNodes(access.address, access.token).nodes()
        import ray

        try:
            with StartGuard(f"joining the cluster at {access.address}", self._log):
                ray.init(
                    address=access.address,
                    log_to_driver=False,
                    logging_level="error",
                    namespace=f"t2po-{self._name}-{secrets.token_hex(4)}",
                )
        except Exception as error:  # the boundary that stops: Ray raises what it likes, with advice for developers
            raise AccessError(
                f"cluster.address = {self._address}: the cluster was not joined: {cause_of(error)}; a raylet of it has "
                "to run on this machine, with the same versions of Ray and Python"
            ) from error
        self._access = access
        self._job = ray.get_runtime_context().get_job_id()

    def problem(self, patience_s: float) -> str:
        """Nothing: the cluster's servers are not the run's, and may be on another machine."""
        return ""

    def metrics_addresses(self) -> list[str]:
        """Where the nodes' agents serve Ray's own metrics, "host:port"."""
        return metrics_addresses() if self._access is not None else []

    def end_children_of(self, pid: int) -> None:
        """Nothing: the pid may be another machine's, and an engine ends with its actor."""

    def stop(self) -> None:
        """Leaves the cluster: the run's actors end, nobody else's do. Waits until they are gone."""
        if self._access is None:
            return
        access, self._access = self._access, None
        import ray

        address = ray.get_runtime_context().gcs_address
        ray.shutdown()
        try:
            self._wait_gone(address, access)
        except Exception as error:  # the boundary that stops: a cluster that is gone has no actors of ours
            logger.info("the cluster does not say whether the run's actors are gone: %s", cause_of(error))

    def _wait_gone(self, address: str, access: Access) -> None:
        from controller.local_cluster.ray_nodes import RayNodes

        nodes = RayNodes(address, access.token)
        deadline = time.monotonic() + GONE_WITHIN_S
        while left := [actor for actor in nodes.actors() if actor.job == self._job]:
            if time.monotonic() > deadline:
                logger.warning("%d actors of the run have not ended within %g s", len(left), GONE_WITHIN_S)
                return
            time.sleep(LOOK_EVERY_S)
