"""Telling people: what is posted, and that a webhook that fails or hangs never harms the run."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from controller.collapse.finding import Level
from controller.collapse.notify import WEBHOOK, Notifier
from controller.collapse.observatory import Health
from controller.collapse.settings import CollapseSettings

ILL = Health(step=9, level=Level.COLLAPSED, since=8, causes=("entropy fell", "KL rose"))


class Hook(HTTPServer):
    """A webhook on loopback. `status` is its answer; it waits for `gate` before it answers. `drips`: its answer comes
    a byte at a time."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[dict[str, Any]] = []
        self.status = 200
        self.drips = False
        self.gate = threading.Event()
        self.gate.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/secret-path"


class Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append(json.loads(body))
        self.server.gate.wait(10)
        with contextlib.suppress(OSError):  # it was hung up on
            for _ in range(100 if self.server.drips else 0):
                self.wfile.write(b"H")
                time.sleep(0.05)
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    monkeypatch.delenv(WEBHOOK, raising=False)
    server = Hook()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.gate.set()
    server.shutdown()
    server.server_close()
    thread.join(timeout=10)


def tell(settings: CollapseSettings) -> tuple[bool, Notifier]:
    notifier = Notifier(settings, "run-1")
    return asyncio.run(notifier.tell(ILL, ["notify", "checkpoint"])), notifier


def test_the_message_names_run_step_level_causes_and_actions(hook: Hook) -> None:
    arrived, notifier = tell(CollapseSettings(webhook=hook.url))
    assert arrived and notifier.failures == 0
    (body,) = hook.bodies
    assert body == {
        "text": "t2po run-1, step 9: collapsed: entropy fell; KL rose",
        "run": "run-1",
        "step": 9,
        "level": "collapsed",
        "since": 8,
        "causes": ["entropy fell", "KL rose"],
        "actions": ["notify", "checkpoint"],
    }


def test_the_webhook_may_stand_in_the_environment(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WEBHOOK, hook.url)
    assert tell(CollapseSettings())[0]
    assert len(hook.bodies) == 1


def test_without_a_webhook_it_is_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WEBHOOK, raising=False)
    with caplog.at_level(logging.WARNING):
        arrived, notifier = tell(CollapseSettings())
    assert arrived and notifier.failures == 0
    assert "step 9: collapsed: entropy fell; KL rose; doing: notify, checkpoint" in caplog.text


def test_a_server_that_refuses_is_counted_and_logged(hook: Hook, caplog: pytest.LogCaptureFixture) -> None:
    hook.status = 500
    with caplog.at_level(logging.WARNING):
        arrived, notifier = tell(CollapseSettings(webhook=hook.url))
    assert not arrived and notifier.failures == 1
    assert "127.0.0.1" in caplog.text and "it answered 500" in caplog.text and "secret-path" not in caplog.text


@pytest.mark.parametrize("place", ["http://127.0.0.1:9/secret-path", "http://:/secret-path", "http://[/secret-path"])
def test_a_server_that_is_not_there_is_counted(place: str, caplog: pytest.LogCaptureFixture) -> None:
    arrived, notifier = tell(CollapseSettings(webhook=place, webhook_timeout_s=5))
    assert not arrived and notifier.failures == 1
    assert "secret-path" not in caplog.text


def test_a_server_that_hangs_is_left_at_the_deadline(hook: Hook) -> None:
    hook.gate.clear()
    arrived, notifier = tell(CollapseSettings(webhook=hook.url, webhook_timeout_s=0.2))
    assert not arrived and notifier.failures == 1


def test_a_server_that_answers_a_byte_at_a_time_is_left_at_the_deadline(hook: Hook) -> None:
    hook.drips = True
    arrived, notifier = tell(CollapseSettings(webhook=hook.url, webhook_timeout_s=0.3))
    assert not arrived and notifier.failures == 1


def test_a_stall_is_told_of_without_waiting_for_the_server(hook: Hook) -> None:
    hook.gate.clear()

    async def stand_still() -> Notifier:
        notifier = Notifier(CollapseSettings(webhook=hook.url), "run-1")
        notifier.begin(Health(step=9, level=Level.WARNING, causes=("no step for 200 s, 10 s before",)))
        assert notifier.failures == 0 and not hook.bodies  # it returned before anything was sent
        while not hook.bodies:
            await asyncio.sleep(0.01)  # the loop goes on while the server keeps us waiting
        hook.gate.set()
        await notifier.close()
        return notifier

    assert asyncio.run(asyncio.wait_for(stand_still(), 10)).failures == 0
    assert hook.bodies[0]["text"] == "t2po run-1, step 9: warning: no step for 200 s, 10 s before"
    assert hook.bodies[0]["actions"] == []


def test_a_stall_that_cannot_be_told_of_is_counted_at_the_deadline(hook: Hook) -> None:
    hook.gate.clear()

    async def stand_still() -> Notifier:
        notifier = Notifier(CollapseSettings(webhook=hook.url, webhook_timeout_s=0.2), "run-1")
        notifier.begin(ILL)
        notifier.begin(ILL)
        await notifier.close()
        await notifier.close()
        return notifier

    assert asyncio.run(asyncio.wait_for(stand_still(), 10)).failures == 2


def test_the_end_of_the_run_does_not_wait_for_a_post(hook: Hook) -> None:
    hook.gate.clear()

    async def end_early() -> Notifier:
        notifier = Notifier(CollapseSettings(webhook=hook.url, webhook_timeout_s=300), "run-1")
        notifier.begin(ILL)
        while not hook.bodies:
            await asyncio.sleep(0.01)
        return notifier

    # what is left of it is cancelled with the loop: no thread keeps the process for 300 s
    assert asyncio.run(asyncio.wait_for(end_early(), 10)).failures == 0
