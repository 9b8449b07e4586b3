"""Telling people: what is posted, and that a webhook that fails or hangs never harms the run."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
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
    """A webhook on loopback. `status` is its answer; it waits for `gate` before it answers."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[dict[str, Any]] = []
        self.status = 200
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
    assert "127.0.0.1" in caplog.text and "secret-path" not in caplog.text


def test_a_server_that_is_not_there_is_counted() -> None:
    arrived, notifier = tell(CollapseSettings(webhook="http://127.0.0.1:9/", webhook_timeout_s=5))
    assert not arrived and notifier.failures == 1


def test_a_server_that_hangs_is_left_at_the_deadline(hook: Hook) -> None:
    hook.gate.clear()
    arrived, notifier = tell(CollapseSettings(webhook=hook.url, webhook_timeout_s=0.2))
    assert not arrived and notifier.failures == 1
