"""The check of a Redis server before a run, against real servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from controller.preflight import check_redis
from controller.queue_address import PASSWORD, USER, queue_key
from controller.valkey import ValkeyServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyServer]:
    with ValkeyServer(tmp_path / "queue") as one:
        yield one


def place(server: ValkeyServer) -> str:
    return f"redis://127.0.0.1:{server.url.rpartition(':')[2]}"


def test_server_of_our_own_is_accepted(server: ValkeyServer) -> None:
    assert list(check_redis(server.url, "", {})) == []
    with redis.Redis.from_url(server.url) as client:
        client.set(queue_key("run", "groups"), "x")
    assert list(check_redis(server.url, "", {})) == []


def test_server_that_needs_a_password_says_where_to_put_it(server: ValkeyServer) -> None:
    (missing,) = check_redis(place(server), "", {})
    assert "set T2PO_QUEUE_USER and T2PO_QUEUE_PASSWORD" in missing
    (wrong,) = check_redis(place(server), "", {PASSWORD: "another"})
    assert "refuses us" in wrong
    assert "another" not in wrong


def test_user_with_the_acl_of_the_docs_is_accepted(server: ValkeyServer) -> None:
    rules = ("on", ">secret", "~t2po:*", "+@all", "-@dangerous")
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("ACL", "SETUSER", "t2po", *rules)
    assert list(check_redis(place(server), "", {USER: "t2po", PASSWORD: "secret"})) == []


def test_server_of_somebody_else_is_refused(server: ValkeyServer) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.set("sessions:4711", "somebody's")
        client.config_set("maxmemory-policy", "allkeys-lru")
    foreign, evicting = check_redis(server.url, "", {})
    assert "holds 1 keys of somebody else (such as 'sessions:4711')" in foreign
    assert "maxmemory-policy is allkeys-lru" in evicting
