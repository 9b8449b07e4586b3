"""A trajectory that searches through a real server: one that stumbles, one that is gone, and what is counted."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from actors.env_pool import EnvPool
from actors.rollout import EnvFailure, PlaySettings, TrajectorySpec
from envs.environment import find_environment
from envs.panel import load_panel
from envs.records import Trajectory, TurnReply
from envs.settings import EnvSettings
from learner.tiny_policy import train_tokenizer
from tests.fakes import make_candidate

SEARCH = find_environment("search")
RESULT = b'{"result": [[{"document": {"id": "1", "contents": "\\"Mali\\"\\nBamako"}, "score": 1.0}]]}'


class Stumbling(BaseHTTPRequestHandler):
    """Answers 503 as often as `failures` says, then a passage."""

    failures = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if type(self).failures > 0:
            type(self).failures -= 1
            self.send_error(503)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(RESULT)))
        self.end_headers()
        self.wfile.write(RESULT)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stumbling)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def play(settings: EnvSettings, *replies: str) -> tuple[Trajectory, EnvPool]:
    said = iter(replies)

    async def ask(*_: object) -> TurnReply:
        return TurnReply(accepted=make_candidate(next(said)), rejected=())

    tokenizer = train_tokenizer(["a"], ["b"], SEARCH.vocabulary(), SEARCH.markers)
    rollout = PlaySettings(env=settings, prompt_tokens=4096, env_step_timeout_s=20.0)
    pool = EnvPool(rollout, tokenizer, lambda: SEARCH.make(settings), ask)
    spec = TrajectorySpec(
        run_id="r", group_id="r/0", group_index=0, task=load_panel("search", "seen").tasks[0], sibling=0, attempt=0,
        sampling="train",
    )  # fmt: skip
    return asyncio.run(pool.run(spec)), pool


def settings_of(url: str, **search: object) -> EnvSettings:
    fields = {"retriever": "http", "url": url, "wait_s": 0.05, "timeout_s": 3.0, **search}
    return EnvSettings.model_validate({"name": "search", "max_turns": 3, "search": fields})


def test_a_server_that_stumbles_costs_tries_not_the_trajectory(url: str) -> None:
    Stumbling.failures = 2
    ask, answer = "<think>a</think><search>Mali</search>", "<think>a</think><answer>Bamako</answer>"
    trajectory, pool = play(settings_of(url), ask, answer)
    assert "Bamako" in trajectory.turns[1].observation
    assert pool.status()["notes"] == "searches retried: status 503 2"


def test_a_server_that_stays_away_ends_the_attempt_with_its_cause(url: str) -> None:
    Stumbling.failures = 100
    with pytest.raises(EnvFailure, match=f"RetrievalError: .*{url}"):
        play(settings_of(url, tries=2), "<think>a</think><search>Mali</search>")
    assert 90 < Stumbling.failures < 100, "tries are bounded"


def test_the_policy_can_be_told_instead(url: str) -> None:
    Stumbling.failures = 100
    ask, answer = "<think>a</think><search>Mali</search>", "<think>a</think><answer>Bamako</answer>"
    trajectory, _ = play(settings_of(url, tries=2, on_failure="text"), ask, answer)
    assert "Search error" in trajectory.turns[1].observation


def test_an_action_of_the_model_stays_as_it_was_written(url: str, tmp_path: Path) -> None:
    """Case matters in a query and in an answer; the reply of other environments is lower-cased."""
    Stumbling.failures = 0
    trajectory, _ = play(settings_of(url), "<think>a</think><answer> Bamako City </answer>")
    assert trajectory.turns[0].action == "<answer>Bamako City</answer>" and trajectory.turns[0].valid
