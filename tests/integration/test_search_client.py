"""The client of a retrieval service on loopback: what it finds, what it tries again, when it gives up."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from envs.search.client import HttpRetriever
from envs.search.corpus import Passage
from envs.search.env import SearchEnv
from envs.search.reply import search_action
from envs.search.retriever import IndexRetriever, RetrievalError
from tests.integration.search_service import served
from tests.unit.search_suite import suite_data, suite_task


@pytest.mark.parametrize("dialect", ["queries", "query"])
def test_the_client_finds_what_the_index_finds(town_retriever: IndexRetriever, dialect: Any) -> None:
    with served(town_retriever) as address:
        client = HttpRetriever(address, dialect=dialect)
        assert client.check()["corpus_hash"] == town_retriever.corpus.hash
        for query in ("mayor of Town 7", "Größe", "nothing like it", "\ud800\x00"):
            assert client.search(query, 3) == town_retriever.search(query, 3)
        assert HttpRetriever(address + "/retrieve/").search("Person9", 1)[0].id == "9"
        assert client.counts() == {"searches": 4, "retried": {}, "given_up": {}}


def test_the_environment_plays_over_the_service(town_retriever: IndexRetriever) -> None:
    with served(town_retriever) as address:
        env = SearchEnv(retriever=HttpRetriever(address), data_dir=suite_data())
        env.reset(options={"task": suite_task("unseen", 0)})
        assert "Person7" in env.step(search_action("mayor of Town 7"))[0]
        assert env.step(search_action("mayor " * 20_000 + "\x00"))[0].startswith("<information>")  # 120 kB, cut


# --- services that fail -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def failing(answers: list[Any]) -> Iterator[tuple[str, list[str]]]:
    """A server that gives these answers in turn (status, (status, body), "hang", "drip", "close"); the last stays."""
    asked: list[str] = []
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append(self.path)
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            status, body = answer if isinstance(answer, tuple) else (answer, b"{}")
            if answer == "close":
                self.connection.shutdown(socket.SHUT_RDWR)
            elif answer == "hang":
                over.wait(30)
            elif answer == "drip":
                self.send_response(200)
                self.send_header("Content-Length", "1000000")
                self.end_headers()
                with contextlib.suppress(OSError):
                    while not over.wait(0.05):
                        self.wfile.write(b"x")
                        self.wfile.flush()
            else:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        do_GET = do_POST

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join(30)


GOOD = (200, b'{"result": [[{"document": {"id": "1", "contents": "x"}, "score": 0.5}]]}')
BARE = (200, b'{"result": [[{"id": "1", "contents": "x"}, {"id": "2", "contents": "y"}]]}')


def test_what_is_retried_and_how_long_it_waits() -> None:
    waits: list[float] = []
    with failing([500, 502, "close", 503, 504, GOOD]) as (address, asked):
        client = HttpRetriever(address, wait_s=0.5, pause=waits.append)
        assert client.search("q", 3) == [Passage("1", "x", 0.5)]
    assert waits == [0.5, 1.0, 1.5, 2.0, 2.5] and len(asked) == 6
    retried = {"status 500": 1, "status 502": 1, "connection": 1, "status 503": 1, "status 504": 1}
    assert client.counts() == {"searches": 1, "retried": retried, "given_up": {}}


def test_bare_documents_and_more_than_asked_for() -> None:
    with failing([BARE]) as (address, _):
        assert HttpRetriever(address).search("q", 1) == [Passage("1", "x")]


def test_giving_up_after_all_tries() -> None:
    with failing([503]) as (address, asked):
        client = HttpRetriever(address, tries=4, pause=lambda wait: None)
        with pytest.raises(RetrievalError, match=rf"{address}: .*status 503; 4 tries.*t2po serve search"):
            client.search("q", 3)
    assert len(asked) == 4
    assert client.counts() == {"searches": 1, "retried": {"status 503": 3}, "given_up": {"status 503": 1}}


@pytest.mark.parametrize("kind", ["hang", "drip"])
def test_a_slow_service_is_a_counted_time_out(kind: str) -> None:
    with failing([kind]) as (address, asked):
        client = HttpRetriever(address, timeout_s=0.2, tries=2, wait_s=0.0, deadline_s=60.0)
        with pytest.raises(RetrievalError, match="timeout; 2 tries"):
            client.search("q", 3)
        assert len(asked) == 2 and client.counts()["given_up"] == {"timeout": 1}


def test_the_deadline_ends_it_before_the_tries_do() -> None:
    now = [0.0]
    with failing([503]) as (address, asked):
        client = HttpRetriever(address, tries=1000, wait_s=1.0, deadline_s=0.5, pause=now.append)
        with pytest.raises(RetrievalError, match="1 tries"):
            client.search("q", 3)
    assert len(asked) == 1 and now == [0.0]  # a wait of 1 s does not fit into what is left


@pytest.mark.parametrize(
    "answer",
    [
        400,
        404,
        422,
        (200, b"not json"),
        (200, b"[]"),
        (200, b'{"result": []}'),
        (200, b'{"result": [[{"document": {"id": 1}, "score": 2}]]}'),
        (200, b'{"result": [[3]]}'),
        (200, b"[" * 100_000),
        (301, b""),
    ],
)
def test_what_another_try_would_not_mend_is_not_tried_again(answer: Any) -> None:
    with failing([answer]) as (address, asked):
        client = HttpRetriever(address)
        with pytest.raises(RetrievalError, match=address):
            client.search("q", 3)
    assert len(asked) == 1 and client.counts()["retried"] == {}


def test_a_reply_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envs.search.client.LARGEST_REPLY", 1000)
    with failing([(200, b"x" * 5000)]) as (address, _), pytest.raises(RetrievalError, match="longer than 1000 bytes"):
        HttpRetriever(address).search("q", 3)


def test_an_absent_service_fails_at_the_start_and_names_the_address() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(RetrievalError, match=rf"no search service at {address} .*refused.*t2po serve search"):
        HttpRetriever(address).check()
    with pytest.raises(RetrievalError, match="http://HOST:PORT"):
        HttpRetriever("127.0.0.1:8000")
    # it was there and is gone: bounded tries, counted
    client = HttpRetriever(address, tries=3, pause=lambda wait: None)
    with pytest.raises(RetrievalError, match="connection; 3 tries"):
        client.search("q", 3)
    assert client.counts() == {"searches": 1, "retried": {"connection": 2}, "given_up": {"connection": 1}}


def test_the_check_of_published_and_of_other_services() -> None:
    with failing([404, GOOD]) as (address, asked):  # Search-R1's server has no /health
        assert HttpRetriever(address).check() == {}
    assert asked == ["/health", "/retrieve"]
    with failing([404]) as (address, _), pytest.raises(RetrievalError, match="status 404"):
        HttpRetriever(address).check()


def test_many_threads_share_one_client(town_retriever: IndexRetriever) -> None:
    with served(town_retriever) as address, ThreadPoolExecutor(16) as pool:
        client = HttpRetriever(address)
        found = list(pool.map(lambda n: client.search(f"mayor of Town {n % 40}", 1)[0].id, range(200)))
    assert found == [str(number % 40) for number in range(200)]
    assert client.counts()["searches"] == 200
