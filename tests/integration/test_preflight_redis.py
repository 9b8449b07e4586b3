"""The check of a Redis server before a run, against real servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from controller.config import QueueSettings
from controller.queue_address import PASSWORD, USER, queue_key
from controller.queue_server_check import check_queue_server, require_queue_server
from controller.redis_link import QueueError
from controller.valkey import ValkeyServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyServer]:
    with ValkeyServer(tmp_path / "queue") as one:
        yield one


def place(server: ValkeyServer) -> str:
    return f"redis://127.0.0.1:{server.url.rpartition(':')[2]}"


def test_server_of_our_own_is_accepted(server: ValkeyServer) -> None:
    assert list(check_queue_server(server.url, "", {})) == []
    with redis.Redis.from_url(server.url) as client:
        assert client.keys() == [], "the queue on trial leaves nothing behind"
        client.set(queue_key("run", "groups"), "x")
        client.mset({f"others:{number}": "x" for number in range(5000)})
    assert list(check_queue_server(server.url, "", {})) == []


def test_server_that_needs_a_password_says_where_to_put_it(server: ValkeyServer) -> None:
    (missing,) = check_queue_server(place(server), "", {})
    assert "T2PO_QUEUE_USER and T2PO_QUEUE_PASSWORD" in missing
    (wrong,) = check_queue_server(place(server), "", {PASSWORD: "another"})
    assert "cannot look at the keys: " in wrong and "check user, password" in wrong
    assert "another" not in wrong


def test_user_with_the_acl_of_the_docs_is_accepted(server: ValkeyServer) -> None:
    rules = ("on", ">secret", "~t2po:*", "+@all", "-@dangerous")
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("ACL", "SETUSER", "t2po", *rules)
    assert list(check_queue_server(place(server), "", {USER: "t2po", PASSWORD: "secret"})) == []


@pytest.mark.parametrize("missing", ["-xadd", "-eval -evalsha", "-xautoclaim", "-hset", "-del"])
def test_user_that_may_not_do_what_the_queue_needs_is_refused(server: ValkeyServer, missing: str) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("ACL", "SETUSER", "t2po", "on", ">secret", "~t2po:*", "+@all", *missing.split())
    (problem,) = check_queue_server(place(server), "", {USER: "t2po", PASSWORD: "secret"})
    assert problem.startswith(f"queue.url = redis://t2po:***@127.0.0.1:{server.url.rpartition(':')[2]}: cannot ")
    assert "check user, password and rights" in problem


def test_server_whose_memory_is_full_is_refused(server: ValkeyServer) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", "1")
    (problem,) = check_queue_server(server.url, "", {}, timeout_s=0.2)
    assert "raise its maxmemory" in problem


def test_run_is_refused_with_all_that_is_wrong(server: ValkeyServer) -> None:
    require_queue_server(QueueSettings(url=server.url), {})
    with redis.Redis.from_url(server.url) as client:
        client.set("sessions:4711", "somebody's")
        client.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(QueueError) as caught:
        require_queue_server(QueueSettings(url=server.url), {})
    assert len(str(caught.value).splitlines()) == 2
    with redis.Redis.from_url(server.url) as client:
        assert client.keys() == [b"sessions:4711"], "nothing is written to what is somebody else's"


def test_server_of_somebody_else_is_refused(server: ValkeyServer) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.set("sessions:4711", "somebody's")
        client.config_set("maxmemory-policy", "allkeys-lru")
    foreign, evicting = check_queue_server(server.url, "", {})
    assert "holds 1 keys of somebody else (such as 'sessions:4711')" in foreign
    assert "maxmemory-policy is allkeys-lru" in evicting
