"""The check of the server at queue.url, as far as it goes without one (the rest: tests/integration)."""

from __future__ import annotations

import pytest

from controller.config import QueueSettings
from controller.queue_server_check import check_queue_server, require_queue_server
from controller.redis_link import QueueError


def test_a_server_that_is_open_or_away_is_refused() -> None:
    found = list(check_queue_server("redis://192.0.2.1:1/0", "", {}, timeout_s=0.1))
    assert any("without a password" in line for line in found)
    assert any("rediss://" in line for line in found)
    (away,) = check_queue_server("redis://127.0.0.1:1/0", "", {}, timeout_s=0.1)
    assert away.startswith("queue.url = redis://127.0.0.1:1/0: cannot look at the keys: tried ")
    assert "is the server running and reachable? Start it, correct queue.url" in away


def test_an_address_that_cannot_be_read_is_refused() -> None:
    (nonsense,) = check_queue_server("redis://127.0.0.1:port/0", "", {})
    assert "write rediss://" in nonsense
    (scheme,) = check_queue_server("http://127.0.0.1:1/0", "", {})
    assert scheme.startswith("queue.url = http://127.0.0.1:1/0: ") and "write redis://" in scheme


def test_the_server_of_the_run_itself_is_not_looked_for() -> None:
    assert list(check_queue_server("", "", {})) == []
    require_queue_server(QueueSettings(url=""), {})


def test_a_password_is_never_shown() -> None:
    for address in ("redis://me:hidden@127.0.0.1:1/0", "redis://me:hidden@192.0.2.1:1/0"):
        assert not any("hidden" in line for line in check_queue_server(address, "", {}, timeout_s=0.1))


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(QueueError) as caught:
        require_queue_server(QueueSettings(url="redis://me@192.0.2.1:none/0"), {})
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(QueueError, match=r"\*\*\*.* is not kept in the run folder; set T2PO_QUEUE_PASSWORD"):
        require_queue_server(QueueSettings(url="redis://:***@127.0.0.1:1/0"), {})
