"""Whether the server at `queue.url` can hold a run's replay queue, found before anything is started.

Owns: the checks of a server that is not our own, with their remedies. Called by `controller.preflight` and, before
a run is begun or resumed, by `controller.train`. Must not know: what a run puts into the queue.

The last check is the queue itself, on trial under a name of its own, which is removed again: what a server lacks (a
command, a right, memory, a disk to write to) shows in use and nowhere else.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from redis.exceptions import ResponseError

from controller.config import QueueSettings
from controller.queue_address import QueueAddressError, hidden_password, queue_address
from controller.redis_link import QueueError, RedisLink
from controller.replay_queue import ReplayQueue
from envs.records import Task, TrajectoryGroup

TIMEOUT_S = 5.0
"""For a server to answer: a wrong address is to be said soon. A run that is under way waits `queue.timeout_s`."""
LOOPBACK = ("", "localhost", "127.0.0.1", "::1")
PAGE, PAGES = 1000, 100
"""So many keys, so many times, are looked at to find out whose database it is."""
TRIAL = TrajectoryGroup(
    id="trial", index=0, task=Task(env="trial", panel="trial", index=0, id="trial", kind="trial"), trajectories=()
)


def require_queue_server(settings: QueueSettings, environment: Mapping[str, str] = os.environ) -> None:
    """Raises QueueError with all that is wrong, a line each; returns at once when the run has a server of its own."""
    if problems := list(check_queue_server(settings.url, settings.ca_file, environment)):
        raise QueueError("\n".join(problems))


def check_queue_server(
    url: str, ca_file: str, environment: Mapping[str, str] = os.environ, timeout_s: float = TIMEOUT_S
) -> Iterator[str]:
    """What is wrong: it does not answer to us, throws away what it has, is somebody else's, is open to others, or does
    not do what the queue needs. A line each, with value, place and remedy; no password."""
    if not url:
        return
    try:
        address = queue_address(url, ca_file, environment)
        yield from _open_to_others(hidden_password(url), address)
        unfit = list(_unfit(hidden_password(url), RedisLink(address, "t2po-preflight", timeout_s, None)))
        yield from unfit
        if not unfit:  # nothing is written to what is somebody else's
            _try(address, timeout_s)
    except QueueAddressError as error:
        yield str(error)
    except QueueError as error:
        text = str(error)
        yield text if text.startswith("queue.url") else f"queue.url = {text}"


def _open_to_others(shown: str, address: str) -> Iterator[str]:
    parts = urlsplit(address)
    if parts.scheme not in ("redis", "rediss") or parts.hostname in LOOPBACK:
        return
    if not parts.password and "password=" not in parts.query:
        yield (
            f"queue.url = {shown}: a server on another machine without a password: set T2PO_QUEUE_PASSWORD, and there "
            "an ACL"
        )
    if parts.scheme == "redis":
        yield (
            f"queue.url = {shown}: password and rollouts would cross the network readable: use rediss:// and "
            "queue.ca_file"
        )


def _unfit(shown: str, link: RedisLink) -> Iterator[str]:
    with link.client as client:
        count, stranger = link.call("look at the keys", lambda: _allowed(lambda: _stranger(client), (0, None)))
        if stranger is not None:
            yield (
                f"queue.url = {shown}: holds {count} keys of somebody else (such as {stranger!r}) and no queue of "
                "t2po: name a server or a database number of its own"
            )
        found: Any = link.call("read its settings", lambda: _allowed(lambda: client.config_get("maxmemory-policy"), {}))
        policy = found.get("maxmemory-policy", "noeviction")
        if policy != "noeviction":
            yield f"queue.url = {shown}: maxmemory-policy is {policy}, which throws groups away: set it to noeviction"


def _allowed(look: Callable[[], Any], otherwise: Any) -> Any:
    """What a look at the server shows; `otherwise` where a narrow ACL, or a hosted server, does not let us look."""
    try:
        return look()
    except ResponseError:
        return otherwise


def _stranger(client: Any) -> tuple[int, str | None]:
    """How many keys there are; the first by name of those that were looked at, when none of them is t2po's."""
    found: list[str] = []
    cursor = 0
    for _ in range(PAGES):
        cursor, page = client.scan(cursor, count=PAGE)
        found += [str(key, "utf-8", "replace") for key in page]
        if any(key.startswith("t2po:") for key in found) or not cursor:
            break
    ours = any(key.startswith("t2po:") for key in found)
    return client.dbsize(), None if ours else min(found, default=None)


def _try(address: str, timeout_s: float) -> None:
    """One group through a queue. Raises QueueError."""
    queue = ReplayQueue(address, f"preflight-{secrets.token_hex(6)}", 1, timeout_s, consumer="preflight")
    with contextlib.closing(queue):
        try:
            queue.push(TRIAL)
            queue.recover()
            queue.acknowledge(entry.entry_id for entry in queue.pull(1, timeout_s))
        except QueueError:
            with contextlib.suppress(QueueError):
                queue.discard()
            raise
        queue.discard()
