"""The replay queue on a real server: nothing confirmed is lost, nothing is delivered twice, nothing blocks for ever."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import struct
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from controller import redis_link
from controller.queue_address import hidden_password
from controller.queue_entry import check_group
from controller.replay_queue import Entry, QueueError, QueueFullError, ReplayQueue
from controller.valkey import ValkeyServer
from envs.codec import _HEADER as HEADER
from envs.codec import encode_group
from envs.records import TrajectoryGroup
from tests.unit.test_codec_round_trip import a_group, assert_same

Open = Callable[..., ReplayQueue]


def group(number: int) -> TrajectoryGroup:
    return dataclasses.replace(a_group(), id=f"g{number}", index=number)


def numbers(entries: list[Entry]) -> list[int]:
    return [entry.group.index for entry in entries]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    with ValkeyServer(tmp_path_factory.mktemp("valkey"), max_restarts=1000) as server:
        yield server


@pytest.fixture
def open_queue(server: ValkeyServer) -> Iterator[Open]:
    """Opens queues of one fresh run; all are closed at the end."""
    server.ensure_alive()
    run_id = uuid.uuid4().hex
    opened: list[ReplayQueue] = []

    def open_one(max_groups: int = 100, timeout_s: float = 5.0, **options: object) -> ReplayQueue:
        opened.append(ReplayQueue(server.url, run_id, max_groups, timeout_s, **options))  # type: ignore[arg-type]
        return opened[-1]

    yield open_one
    for queue in opened:
        queue.close()


@pytest.fixture
def client(server: ValkeyServer) -> Any:
    return redis.Redis.from_url(server.url)


def test_groups_arrive_whole_and_in_order(open_queue: Open) -> None:
    queue = open_queue()
    for number in range(5):
        assert queue.push(group(number))
    entries = queue.pull(3, 1.0) + queue.pull(3, 1.0)
    assert numbers(entries) == [0, 1, 2, 3, 4]
    assert_same(entries[2].group, group(2))
    assert queue.depth() == 5
    queue.acknowledge(entry.entry_id for entry in entries)
    queue.acknowledge(entry.entry_id for entry in entries)
    queue.acknowledge([])
    assert queue.depth() == 0 and queue.recover() == []


def test_second_delivery_is_recognised_before_and_after_acknowledgement(open_queue: Open) -> None:
    queue = open_queue()
    assert [queue.push(group(0)), queue.push(group(0))] == [True, False]
    [entry] = queue.pull(10, 1.0)
    assert not queue.push(group(0))
    queue.acknowledge([entry.entry_id])
    assert not queue.push(group(0))
    assert queue.depth() == 0
    assert queue.states(["g0", "g1"]) == {"g0": "acknowledged", "g1": "unknown"}


def test_pull_waits_for_the_first_group_and_then_no_longer(open_queue: Open) -> None:
    queue, producer = open_queue(), open_queue()
    start = time.monotonic()
    assert queue.pull(2, 0.3) == []
    assert 0.25 < time.monotonic() - start < 2
    timer = threading.Timer(0.3, lambda: producer.push(group(0)))
    timer.start()
    assert numbers(queue.pull(2, 10.0)) == [0]
    assert time.monotonic() - start < 5
    timer.join(5)


def test_full_queue_blocks_until_a_place_is_free(open_queue: Open) -> None:
    queue, producer = open_queue(2), open_queue(2)
    queue.push(group(0))
    queue.push(group(1))
    entries = queue.pull(2, 1.0)  # delivered and not acknowledged: the places are still taken
    timer = threading.Timer(0.5, lambda: queue.acknowledge([entries[0].entry_id]))
    timer.start()
    start = time.monotonic()
    assert producer.push(group(2))
    assert time.monotonic() - start > 0.4
    timer.join(5)
    assert producer.depth() == 2
    assert not producer.push(group(1)), "a known id is answered at once, full or not"


def test_full_queue_takes_a_group_that_the_others_wait_for(open_queue: Open) -> None:
    queue = open_queue(max_groups=2, timeout_s=0.3)
    assert queue.push(group(4)) and queue.push(group(5))
    assert queue.push(group(3), even_if_full=True)
    assert not queue.push(group(3), even_if_full=True)
    with pytest.raises(QueueFullError):
        queue.push(group(6))
    assert queue.depth() == 3


def test_full_queue_raises_at_the_deadline(open_queue: Open) -> None:
    queue = open_queue(1, 0.5)
    queue.push(group(0))
    start = time.monotonic()
    with pytest.raises(
        QueueFullError, match=r"no place for group 'g1' within 0\.5 s, 1 groups are held.*queue\.max_groups"
    ):
        queue.push(group(1))
    assert 0.5 <= time.monotonic() - start < 2
    [entry] = queue.pull(1, 1.0)
    queue.acknowledge([entry.entry_id])
    assert queue.push(group(1)), "what was refused was not marked as seen"


def test_recover_after_a_consumer_died(open_queue: Open) -> None:
    first = open_queue(consumer="first")
    for number in range(40):
        first.push(group(number))
    taken = first.pull(35, 1.0)
    first.acknowledge([entry.entry_id for entry in taken[:5]])
    second = open_queue(consumer="second")
    recovered = second.recover()
    assert numbers(recovered) == list(range(5, 35))
    assert second.recover() == [], "an object returns an entry once"
    assert numbers(second.pull(100, 0.1)) == [35, 36, 37, 38, 39]
    third = open_queue(consumer="second")
    assert numbers(third.recover()) == list(range(5, 40))
    assert third.pull(10, 0.1) == []


def test_reply_of_a_pull_is_lost(open_queue: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server delivered, the connection broke before the answer: the entries come with the next pull."""
    queue = open_queue()
    for number in range(3):
        queue.push(group(number))
    real, calls = queue._read_new, []

    def lose_the_first_reply(max_groups: int, block_ms: int) -> list[object]:
        reply = real(max_groups, block_ms)
        calls.append(reply)
        if len(calls) == 1:
            raise redis.ConnectionError("lost")
        return reply

    monkeypatch.setattr(queue, "_read_new", lose_the_first_reply)
    found = numbers(queue.pull(2, 1.0)) + numbers(queue.pull(2, 1.0))
    assert sorted(found) == [0, 1, 2] and len(calls) >= 2
    assert queue.pull(2, 0.1) == []


def test_reply_of_a_push_is_lost(open_queue: Open) -> None:
    """Stored, but the answer never came: the retry sees its own mark and reports the group as stored, once."""
    queue = open_queue()
    real, calls = queue._push_script, []

    def lose_the_first_reply(**arguments: object) -> object:
        calls.append(real(**arguments))  # type: ignore[arg-type]
        if len(calls) == 1:
            raise redis.ConnectionError("lost")
        return calls[-1]

    queue._push_script = lose_the_first_reply  # type: ignore[assignment]
    assert queue.push(group(0))
    assert len(calls) == 2 and queue.depth() == 1
    assert not queue.push(group(0))


def test_foreign_entries_are_moved_aside_and_counted(open_queue: Open, client: Any) -> None:
    queue = open_queue()
    stream = queue._stream
    queue.push(group(0))
    client.xadd(stream, {"hello": "world"})
    client.xadd(stream, {"id": "x", "group": b"\x00\xff not ours" * 2000})
    client.xadd(stream, {"id": "y", "group": encode_group(group(7))})
    client.xadd(stream, {"id": "g5", "group": encode_group(group(5))[:-9]})
    client.xadd(stream, {b"\xff\xfe": b"\xff"})
    queue.push(group(1))
    assert numbers(queue.pull(10, 1.0)) == [0, 1]
    assert queue.depth() == 2
    assert queue.foreign_counts() == {"missing field": 2, "unreadable group": 2, "another id": 1}
    kept = client.xrange(queue._aside)
    reasons = [fields[b"t2po-reason"].decode() for _, fields in kept]
    assert len(kept) == 5 and "field 'id' and 'group' missing" in reasons[0] and "cut short" in reasons[3]
    assert client.memory_usage(queue._aside) < 20_000


def test_groups_behind_many_foreign_entries_come_with_the_same_pull(open_queue: Open, client: Any) -> None:
    queue = open_queue()
    for number in range(9):
        client.xadd(queue._stream, {"hello": str(number)})
    queue.push(group(0))
    assert numbers(queue.pull(4, 0.0)) == [0]
    assert queue.foreign_counts() == {"missing field": 9}


def test_group_that_is_none_of_the_runs_is_foreign(
    open_queue: Open, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Also one without all its siblings, and one whose rewards are no numbers: named, counted, and behind them the
    stream goes on; their ids are free, so that the groups can be made again."""
    whole = [make_whole(dataclasses.replace(group(number), id=f"ours-{number}")) for number in range(4)]
    producer = open_queue()
    queue = open_queue(check=partial(check_group, lambda index: f"ours-{index}", 2))
    producer.push(dataclasses.replace(whole[0], id="theirs-0"))
    producer.push(dataclasses.replace(whole[1], trajectories=whole[1].trajectories[:1]))
    producer.push(dataclasses.replace(whole[2], trajectories=whole[3].trajectories))
    client.xadd(queue._stream, {"id": "ours-9", "group": with_reward_nan(whole[3])})
    client.xadd(queue._stream, {"id": "ours-8", "group": of_version(encode_group(whole[3]), 2)})
    producer.push(whole[3])
    with caplog.at_level(logging.WARNING):
        assert numbers(queue.pull(10, 1.0)) == [3]
    assert queue.foreign_counts() == {
        "another run": 1, "missing sibling": 1, "another group's": 1, "unreadable group": 2
    }  # fmt: skip
    for cause in ("'theirs-0', index 0: not of this run", "rollout.group_size", "holds trajectories of others",
                  "reward must be finite", "format version 2"):  # fmt: skip
        assert cause in caplog.text
    assert queue.states(["ours-1", "ours-2"]) == {"ours-1": "unknown", "ours-2": "unknown"}


def make_whole(one: TrajectoryGroup) -> TrajectoryGroup:
    """Two siblings, each under its group."""
    members = (
        dataclasses.replace(one.trajectories[0], id=f"{one.id}/{sibling}", group_id=one.id, sibling=sibling)
        for sibling in range(2)
    )
    return dataclasses.replace(one, trajectories=tuple(members))


def with_reward_nan(one: TrajectoryGroup) -> bytes:
    """No record can hold it, so it is written into the bytes."""
    first, *rest = one.trajectories
    turn = dataclasses.replace(first.turns[0], reward=123.456)
    marked = dataclasses.replace(one, trajectories=(dataclasses.replace(first, turns=(turn, *first.turns[1:])), *rest))
    data = encode_group(marked)
    body = data[HEADER.size :].replace(struct.pack(">d", 123.456), struct.pack(">d", float("nan")))
    assert body != data[HEADER.size :]
    return _sealed(data, body)


def of_version(data: bytes, version: int) -> bytes:
    magic, kind, _, *rest = HEADER.unpack(data[: HEADER.size])
    return HEADER.pack(magic, kind, version, *rest) + data[HEADER.size :]


def _sealed(data: bytes, body: bytes) -> bytes:
    magic, kind, version, _, _ = HEADER.unpack(data[: HEADER.size])
    return HEADER.pack(magic, kind, version, len(body), zlib.crc32(body)) + body


def test_damaged_group_can_be_pushed_again(open_queue: Open, client: Any) -> None:
    queue = open_queue()
    queue.push(group(0))
    [(entry_id, fields)] = client.xrange(queue._stream)
    client.xdel(queue._stream, entry_id)
    damaged = fields[b"group"][:-1] + bytes([fields[b"group"][-1] ^ 1])
    client.xadd(queue._stream, {"id": "g0", "group": damaged}, id=entry_id.decode().split("-")[0] + "-9")
    client.hset(queue._seen, "g0", "0123456789abcdef " + entry_id.decode().split("-")[0] + "-9")
    assert queue.pull(1, 0.2) == []
    assert queue.foreign_counts() == {"unreadable group": 1} and queue.states(["g0"]) == {"g0": "unknown"}
    assert queue.push(group(0)) and numbers(queue.pull(1, 1.0)) == [0]


def test_foreign_entry_cannot_free_the_id_of_a_good_one(open_queue: Open, client: Any) -> None:
    queue = open_queue()
    queue.push(group(0))
    client.xadd(queue._stream, {"id": "g0", "group": b"junk"})
    assert numbers(queue.pull(10, 1.0)) == [0]
    assert not queue.push(group(0))


def test_states_and_forget(open_queue: Open) -> None:
    """After a fall back to an older checkpoint, groups that the lost one had acknowledged can be rolled out again."""
    queue = open_queue()
    for number in range(20):
        queue.push(group(number))
    done = queue.pull(3, 1.0)
    queue.acknowledge([entry.entry_id for entry in done])
    ids = [f"g{number}" for number in range(21)]
    states = queue.states(ids)
    assert list(states.values()) == ["acknowledged"] * 3 + ["queued"] * 17 + ["unknown"]
    assert sorted(queue.acknowledged()) == ["g0", "g1", "g2"]
    queue.forget(ids)
    assert queue.acknowledged() == []
    assert set(queue.states(ids[:3]).values()) == {"unknown"} and queue.push(group(1)) and not queue.push(group(5))


def test_discard_leaves_no_key(open_queue: Open, client: Any) -> None:
    queue = open_queue()
    queue.push(group(0))
    client.xadd(queue._stream, {"hello": "world"})
    queue.pull(2, 1.0)
    pattern = queue._stream.rsplit(":", 1)[0] + ":*"
    assert len(client.keys(pattern)) == 4
    queue.discard()
    assert client.keys(pattern) == []


def test_kill_9_of_the_server_while_groups_are_pushed_and_pulled(server: ValkeyServer, open_queue: Open) -> None:
    """Five kills under load: every group comes out exactly once, also those whose answers were cut off."""
    producer = open_queue(1000, 60.0, revive=server.ensure_alive)
    consumer = open_queue(1000, 60.0, revive=server.ensure_alive)
    total = 600
    pushed: list[bool] = []
    found: list[int] = []

    def produce() -> None:
        for number in range(total):
            pushed.append(producer.push(group(number)))
            time.sleep(0.002)

    def kill() -> None:
        for _ in range(5):
            time.sleep(0.5)
            server.ensure_alive()
            os.kill(server.pid, signal.SIGKILL)

    threads = [threading.Thread(target=produce), threading.Thread(target=kill)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 120
    while len(found) < total and time.monotonic() < deadline:
        entries = consumer.pull(16, 0.5)
        found += numbers(entries)
        consumer.acknowledge([entry.entry_id for entry in entries])
    for thread in threads:
        thread.join(60)
    assert pushed == [True] * total
    assert sorted(found) == list(range(total))
    assert consumer.depth() == 0 and consumer.recover() == []


def test_server_that_lost_its_data_is_used_afresh(open_queue: Open, client: Any) -> None:
    queue = open_queue()
    queue.push(group(0))
    client.delete(queue._stream, queue._seen)
    assert queue.pull(1, 0.1) == []
    assert queue.push(group(0)) and numbers(queue.pull(1, 1.0)) == [0]


def test_full_memory_is_waited_out_and_named(open_queue: Open, client: Any) -> None:
    queue = open_queue(100, 0.5)
    queue.push(group(0))
    before = client.config_get("maxmemory")["maxmemory"]
    client.config_set("maxmemory", "1")
    try:
        with pytest.raises(QueueError, match=r"memory is full: raise its maxmemory or lower queue\.max_groups"):
            queue.push(group(1))
        assert numbers(queue.pull(1, 0.2)) == [0], "reading goes on"
        patient = open_queue(100, 10.0)
        timer = threading.Timer(0.5, lambda: client.config_set("maxmemory", before))
        timer.start()
        assert patient.push(group(1))
        timer.join(5)
    finally:
        client.config_set("maxmemory", before)


def test_frozen_server(server: ValkeyServer, open_queue: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_link, "SOCKET_TIMEOUT_S", 0.3)
    queue = open_queue(100, 1.0)
    patient = open_queue(100, 20.0)
    os.kill(server.pid, signal.SIGSTOP)
    timer = threading.Timer(1.5, lambda: os.kill(server.pid, signal.SIGCONT))
    timer.start()
    try:
        start = time.monotonic()
        with pytest.raises(QueueError, match=r"cannot read the depth: tried \d+ times in 1 s, last: Timeout"):
            queue.depth()
        assert time.monotonic() - start < 3
        assert patient.push(group(0))
    finally:
        os.kill(server.pid, signal.SIGCONT)
        timer.join(5)


def test_wrong_password(server: ValkeyServer) -> None:
    url = f"redis://:not-it@{server.url.split('@')[1]}"
    start = time.monotonic()
    with pytest.raises(QueueError, match=r"redis://:\*\*\*@127.*check user, password and rights") as caught:
        ReplayQueue(url, "run", 10, 30.0)
    assert time.monotonic() - start < 5, "no retry can help"
    assert "not-it" not in str(caught.value)


def test_user_without_rights(server: ValkeyServer, client: Any) -> None:
    client.acl_setuser("guest", enabled=True, passwords=["+secret"], keys=["other:*"], categories=["+@all"])
    with pytest.raises(QueueError, match="check user, password and rights"):
        ReplayQueue(f"redis://guest:secret@{server.url.split('@')[1]}", "run", 10, 5.0)
    client.acl_setuser(
        "worker", enabled=True, passwords=["+secret"], keys=["t2po:*"], categories=["+@all", "-@dangerous"]
    )
    url = f"redis://worker:secret@{server.url.split('@')[1]}"
    with contextlib.closing(ReplayQueue(url, uuid.uuid4().hex, 10, 5.0)) as queue:
        assert queue.push(group(0)) and numbers(queue.pull(1, 1.0)) == [0]


def test_url_of_nobody() -> None:
    start = time.monotonic()
    with pytest.raises(
        QueueError, match=r"redis://me:\*\*\*@127.0.0.1:1/0: cannot open the queue: tried \d+ times in 1 s.*reachable"
    ):
        ReplayQueue("redis://me:secret@127.0.0.1:1/0", "run", 10, 1.0)
    assert 0.5 < time.monotonic() - start < 4


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:6379", "127.0.0.1:6379", "redis://host:port/0", "redis://[::1", "", "redis://h:1/0?colour=red"],
)
def test_unusable_url(url: str) -> None:
    with pytest.raises(QueueError, match=r"queue\.url = .*write redis://|cannot open the queue"):
        ReplayQueue(url, "run", 10, 0.3)


def test_something_else_listens_there() -> None:
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()

        def answer() -> None:
            for _ in range(20):
                try:
                    connection, _ = other.accept()
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    connection.close()
                except OSError:
                    return

        other.settimeout(2.0)
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with pytest.raises(QueueError, match=r"127\.0\.0\.1"):
            ReplayQueue(f"redis://127.0.0.1:{other.getsockname()[1]}/0", "run", 10, 0.5)


def test_keys_of_another_program(open_queue: Open, client: Any, server: ValkeyServer) -> None:
    run_id = uuid.uuid4().hex
    client.set(f"t2po:{{{run_id}}}:groups", "mine")
    with pytest.raises(QueueError, match="another program uses this run's keys"):
        ReplayQueue(server.url, run_id, 10, 5.0)


def test_runs_do_not_see_each_other(server: ValkeyServer) -> None:
    with (
        contextlib.closing(ReplayQueue(server.url, uuid.uuid4().hex, 10, 5.0)) as one,
        contextlib.closing(ReplayQueue(server.url, uuid.uuid4().hex, 10, 5.0)) as two,
    ):
        assert one.push(group(0)) and two.push(group(0))
        assert one.depth() == two.depth() == 1


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:pw@h:1/0", "redis://:***@h:1/0"),
        ("rediss://u:p%40w@h:1/0?ssl_ca_certs=/x", "rediss://u:***@h:1/0?ssl_ca_certs=/x"),
        ("redis://h:1/0?password=pw&db=1", "redis://h:1/0?password=***&db=1"),
        ("unix:///tmp/s?password=pw", "unix:///tmp/s?password=***"),
        ("redis://:a/b@c@[::1", "redis://:***@[::1"),
        ("redis://h:1/0", "redis://h:1/0"),
    ],
)
def test_password_is_hidden(url: str, shown: str) -> None:
    assert hidden_password(url) == shown


def test_url_of_a_unix_socket_or_tls_is_taken(tmp_path: Path) -> None:
    for url in (f"unix://{tmp_path}/none.sock", "rediss://127.0.0.1:1/0"):
        with pytest.raises(QueueError, match="reachable"):
            ReplayQueue(url, "run", 10, 0.2)
