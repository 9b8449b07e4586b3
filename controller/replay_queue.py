"""The replay queue: finished groups between the rollouts and the learner, on Redis Streams.

Owns: the stream of one run, the ids that it has seen, and the connection with its retries. Called by the training
loop (pull, acknowledge, recover) and by whoever finishes a group (push). Must not know: how a server is run, what
a checkpoint is, or what the learner does with a group.

Promises:
- What `push` confirmed is returned by `pull` or `recover` until `acknowledge` is called for it: nothing is trimmed.
- A group id is taken once. A second delivery, also after its acknowledgement, is recognised (`push` returns False).
- One ReplayQueue object returns an entry at most once; a new one gets what was not acknowledged from `recover`.
- An entry that is not ours is moved aside, counted with a reason, and never stops the queue.

Acknowledge only after the checkpoint that contains the step is committed. XLEN counts delivered entries until then,
so the bound must hold the groups of all steps between two checkpoints as well as those in flight.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal

from redis.exceptions import ResponseError

from controller.deadline import noted
from controller.queue_address import queue_key
from controller.queue_entry import Entry, ForeignEntryError, decode_fields, text
from controller.queue_scripts import MOVE_ASIDE, PUSH, STATES
from controller.redis_link import FIRST_BACKOFF_S, LONGEST_BACKOFF_S, QueueError, RedisLink
from envs.codec import encode_group
from envs.records import TrajectoryGroup

__all__ = ["Entry", "QueueError", "QueueFullError", "ReplayQueue", "State"]

logger = logging.getLogger(__name__)

CONSUMER_GROUP = "learner"
UNLIMITED = 2**53
BLOCK_S = 2.0
"""One blocking read; shorter than the socket's deadline, so that waiting is not mistaken for a dead server."""
RECOVER_BATCH = 16
ASIDE_ENTRIES, ASIDE_FIELDS, ASIDE_FIELD_BYTES = 100, 10, 4096
"""What is kept of foreign entries for a look at them; the counts by reason are complete."""

State = Literal["unknown", "queued", "acknowledged"]


class QueueFullError(QueueError):
    """No place became free within the deadline."""


class ReplayQueue:
    """The queue of one run. Synchronous. `push` may be called from several threads, the rest from one at a time."""

    def __init__(
        self,
        url: str,
        run_id: str,
        max_groups: int,
        timeout_s: float,
        *,
        consumer: str = "controller",
        revive: Callable[[], object] | None = None,
        check: Callable[[TrajectoryGroup], None] = lambda group: None,
    ) -> None:
        """Connects within `timeout_s`. `revive` is called before each retry: `ValkeyServer.ensure_alive`.

        `check` raises ForeignEntryError for a readable group that is none of this run, or not whole.
        """
        self._max_groups = max_groups
        self._timeout_s = timeout_s
        self._consumer = consumer
        self._check = check
        self._held: set[str] = set()
        self._faults_seen = 0
        self._stream, self._seen, self._aside, self._aside_counts = (
            queue_key(run_id, name) for name in ("groups", "seen", "aside", "aside-counts")
        )
        self._link = RedisLink(url, f"t2po-{consumer}", timeout_s, revive)
        self._redis = self._link.client
        self._push_script = self._redis.register_script(PUSH)
        self._states_script = self._redis.register_script(STATES)
        self._aside_script = self._redis.register_script(MOVE_ASIDE)
        self._link.call("open the queue", self._ensure_group)
        self._link.prepare = self._restore_group

    def close(self) -> None:
        self._redis.close()

    def depth(self) -> int:
        """Entries in the queue: not delivered yet, or delivered and not acknowledged."""
        return int(self._link.call("read the depth", lambda: self._redis.xlen(self._stream)))

    def push(self, group: TrajectoryGroup, *, even_if_full: bool = False) -> bool:
        """Stores a group; False when its id was taken before. Waits while the queue is full, at most its timeout.

        `even_if_full`: for a group that those in the queue wait for; no place would ever become free for it.
        """
        deadline = time.monotonic() + self._timeout_s
        data = encode_group(group)
        nonce = secrets.token_hex(8)
        keys = [self._stream, self._seen]
        limit = UNLIMITED if even_if_full else self._max_groups
        while True:
            state, value = self._link.call(
                f"push group {group.id!r}",
                lambda: self._push_script(keys=keys, args=[limit, group.id, nonce, data]),
            )
            if state == b"added":
                return True
            if state == b"seen":
                # Our own nonce: the answer to an earlier try was lost on its way, the group was stored.
                return bool(value.startswith(nonce.encode()))
            with noted(f"queue: a place for group {group.id}, {self._max_groups} are held", self._timeout_s):
                self._wait_for_place(group.id, deadline)

    def _wait_for_place(self, group_id: str, deadline: float) -> None:
        backoff = FIRST_BACKOFF_S
        while True:
            if time.monotonic() > deadline:
                raise QueueFullError(
                    f"{self._link.where}: no place for group {group_id!r} within {self._timeout_s:g} s, "
                    f"{self._max_groups} groups are held: is the learner running? Checkpoints free places: "
                    f"queue.max_groups must hold the groups of checkpoint.every_steps steps and those in flight"
                )
            time.sleep(backoff)
            backoff = min(backoff * 2, LONGEST_BACKOFF_S)
            if self.depth() < self._max_groups:
                return

    def pull(self, max_groups: int, timeout_s: float) -> list[Entry]:
        """The next groups, oldest first: at least one unless `timeout_s` passes, at most `max_groups`."""
        deadline = time.monotonic() + timeout_s
        while True:
            if self._faults_seen != self._link.num_faults:
                lost = self._link.call("look for lost replies", partial(self._read_lost, max_groups))
                if entries := self._accept(lost):
                    return entries
            block_ms = max(1, int(1000 * min(BLOCK_S, self._link.socket_timeout_s / 2, deadline - time.monotonic())))
            raw = self._link.call("pull", partial(self._read_new, max_groups, block_ms))
            entries = self._accept(raw)
            # Foreign entries are no answer: behind them the stream may go on.
            if entries or (not raw and time.monotonic() >= deadline):
                return entries

    def recover(self) -> list[Entry]:
        """Entries that were delivered to anyone and not acknowledged, oldest first; from now on they are ours.

        Call it once after opening, before `pull`. Who had them before is not spared: a run has one consumer.
        """
        found: list[Entry] = []
        start = "0-0"
        while True:
            reply = self._link.call(
                "recover entries",
                partial(
                    self._redis.xautoclaim,
                    self._stream,
                    CONSUMER_GROUP,
                    self._consumer,
                    min_idle_time=0,
                    start_id=start,
                    count=RECOVER_BATCH,
                ),
            )
            found += self._accept(reply[1])
            start = text(reply[0])
            if start == "0-0":
                return sorted(found, key=lambda entry: _order(entry.entry_id))

    def acknowledge(self, entry_ids: Iterable[str]) -> None:
        """Deletes entries for good; their ids stay known. A second call for the same entries changes nothing."""
        ids = list(entry_ids)
        for place in range(0, len(ids), 1000):
            batch = ids[place : place + 1000]
            self._link.call(f"acknowledge {len(ids)} entries", partial(self._remove, batch))
        self._held.difference_update(ids)

    def states(self, group_ids: Iterable[str]) -> dict[str, State]:
        """Where groups are, for a resume: "queued" (delivered or not), "acknowledged", or "unknown"."""
        ids = list(group_ids)
        found: dict[str, Any] = {}
        for place in range(0, len(ids), RECOVER_BATCH):  # the script reads whole entries: few at a time
            batch = ids[place : place + RECOVER_BATCH]
            reply = self._link.call(
                "read the states of groups",
                partial(self._states_script, keys=[self._stream, self._seen], args=batch),
            )
            found |= dict(zip(batch, (text(state) for state in reply), strict=True))
        return found

    def acknowledged(self) -> list[str]:
        """Ids that were acknowledged and not forgotten: for a resume from a checkpoint older than the last."""
        seen: list[str] = []
        cursor = 0
        while True:
            reply: Any = self._link.call("read the ids", partial(self._redis.hscan, self._seen, cursor, count=1000))
            cursor, page = reply
            seen += map(text, page)
            if cursor == 0:
                break
        return [group_id for group_id, state in self.states(dict.fromkeys(seen)).items() if state == "acknowledged"]

    def forget(self, group_ids: Iterable[str]) -> None:
        """Lets ids be pushed again that were acknowledged for a checkpoint which was then lost."""
        ids = [group_id for group_id, state in self.states(group_ids).items() if state == "acknowledged"]
        if ids:
            self._link.call("forget ids", lambda: self._redis.hdel(self._seen, *ids))

    def discard(self) -> None:
        """Deletes all keys of this run: when it is over, or given up. The object must not be used afterwards."""
        keys = [self._stream, self._seen, self._aside, self._aside_counts]
        self._link.call("discard the run", lambda: self._redis.delete(*keys))

    def foreign_counts(self) -> dict[str, int]:
        """How many entries were ever moved aside in this run, by reason."""
        counts = self._link.call("read counts", lambda: self._redis.hgetall(self._aside_counts))
        return {text(reason): int(count) for reason, count in counts.items()}

    def _restore_group(self) -> None:
        if self._ensure_group():
            logger.warning("%s: the server lost this run's stream; groups that were in it are gone", self._link.where)

    def _ensure_group(self) -> bool:
        """Whether it had to be made. Looks first: a server whose memory is full refuses to create, but can be read."""
        try:
            groups: Any = self._redis.xinfo_groups(self._stream)
        except ResponseError as error:
            if "no such key" not in str(error):
                raise
            groups = []
        if any(text(group["name"]) == CONSUMER_GROUP for group in groups):
            return False
        try:
            self._redis.xgroup_create(self._stream, CONSUMER_GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):  # another process was faster
                raise
            return False
        return True

    def _read_new(self, max_groups: int, block_ms: int) -> list[Any]:
        reply: Any = self._redis.xreadgroup(
            CONSUMER_GROUP, self._consumer, {self._stream: ">"}, count=max_groups, block=block_ms
        )
        return reply[0][1] if reply else []

    def _read_lost(self, max_groups: int) -> list[Any]:
        """Entries that the server delivered in a reply that never arrived: ours, pending, and not held."""
        num_faults = self._link.num_faults
        lost: list[str] = []
        start = "-"
        while True:
            page: Any = self._redis.xpending_range(
                self._stream, CONSUMER_GROUP, start, "+", 1000, consumername=self._consumer
            )
            lost += [entry_id for item in page if (entry_id := text(item["message_id"])) not in self._held]
            if len(page) < 1000:
                break
            start = f"({text(page[-1]['message_id'])}"
        raw: list[Any] = []
        for entry_id in lost[:max_groups]:
            raw += self._redis.xrange(self._stream, entry_id, entry_id) or []
        if len(lost) <= max_groups:
            self._faults_seen = num_faults
        return raw

    def _accept(self, raw: list[Any]) -> list[Entry]:
        """Decodes what is ours and not held already; moves the rest aside."""
        entries = []
        for raw_id, fields in raw:
            entry_id = text(raw_id)
            if entry_id in self._held or fields is None:
                continue
            try:
                group = decode_fields(fields)
                self._check(group)
            except ForeignEntryError as error:
                self._move_aside(entry_id, fields, error)
                continue
            self._held.add(entry_id)
            entries.append(Entry(entry_id, group))
        return entries

    def _move_aside(self, entry_id: str, fields: dict[bytes, bytes], error: ForeignEntryError) -> None:
        group_id = fields.get(b"id", b"")
        shown = [part[:ASIDE_FIELD_BYTES] for pair in list(fields.items())[:ASIDE_FIELDS] for part in pair]
        self._link.call(
            "move a foreign entry aside",
            lambda: self._aside_script(
                keys=[self._stream, self._seen, self._aside, self._aside_counts],
                args=[CONSUMER_GROUP, entry_id, group_id, error.kind, ASIDE_ENTRIES, "t2po-reason", str(error), *shown],
            ),
        )
        logger.warning("%s: entry %s moved aside to %s: %s", self._link.where, entry_id, self._aside, error)

    def _remove(self, entry_ids: list[str]) -> None:
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.xack(self._stream, CONSUMER_GROUP, *entry_ids)
            pipe.xdel(self._stream, *entry_ids)
            pipe.execute()


def _order(entry_id: str) -> tuple[int, int]:
    moment, _, count = entry_id.partition("-")
    return int(moment), int(count)
