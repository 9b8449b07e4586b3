"""The replay queue as a run has it: on a server of its own, or on the one that `queue.url` names.

Owns: which server that is, the queue's settings. Called by `controller.training_run`. Must not know: what is queued
when.
"""

from __future__ import annotations

from functools import partial

from controller.config import RunConfig
from controller.generation import group_name
from controller.queue_address import queue_address
from controller.queue_entry import check_group
from controller.replay_queue import ReplayQueue
from controller.run_folder import RunFolder
from controller.valkey import ValkeyServer


def own_server(config: RunConfig, folder: RunFolder) -> ValkeyServer | None:
    """The run's own server, not started yet; None when `queue.url` names another."""
    if config.queue.url:
        return None
    return ValkeyServer(
        folder.queue,
        log=folder.path / "valkey.log",
        max_restarts=config.supervision.max_restarts,
        restart_window_s=config.supervision.restart_window_s,
    )


def open_queue(config: RunConfig, run_id: str, server: ValkeyServer | None) -> ReplayQueue:
    """Starts `server`, if there is one. Blocks for a second; ValkeyError, QueueError."""
    if server:
        server.start()
    return ReplayQueue(
        server.url if server else queue_address(config.queue.url, config.queue.ca_file),
        run_id,
        config.queue.max_groups,
        config.queue.timeout_s,
        revive=server.ensure_alive if server else None,
        check=partial(check_group, partial(group_name, run_id), config.rollout.group_size),
    )
