"""The retrieval service and its client on loopback: both request forms, batches, limits, failures, a clean stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import urllib3

from envs.data_folder import DataError
from envs.search.client import HttpRetriever
from envs.search.corpus import Passage
from envs.search.env import SearchEnv
from envs.search.reply import search_action
from envs.search.retriever import IndexRetriever, RetrievalError
from envs.search.server import ServerLimits, running_server
from tests.unit.search_suite import small_retriever, suite_data, suite_task

TEXTS = [f'"Town {number}"\nThe mayor of Town {number} is Person{number}. Größe {number}' for number in range(40)]
HTTP = urllib3.PoolManager(retries=False, maxsize=64)


@contextlib.contextmanager
def served(retriever: IndexRetriever, limits: ServerLimits | None = None) -> Iterator[str]:
    """The service in a thread, on a free port of loopback."""
    ready: list[str] = []
    started, loops = threading.Event(), list[tuple[asyncio.AbstractEventLoop, asyncio.Event]]()

    async def run() -> None:
        stop = asyncio.Event()
        loops.append((asyncio.get_running_loop(), stop))
        async with running_server(retriever, port=0, limits=limits) as address:
            ready.append(address)
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        assert started.wait(30)
        yield ready[0]
    finally:
        loop, stop = loops[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)


def ask(address: str, body: Any, path: str = "/retrieve") -> tuple[int, Any]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = HTTP.request("POST", address + path, body=content, timeout=30)
    return reply.status, json.loads(reply.data)


def metrics(address: str) -> dict[str, float]:
    text = HTTP.request("GET", f"{address}/metrics", timeout=30).data.decode()
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


class Slow(IndexRetriever):
    """A real retriever that remembers its batches, and waits until it may go on."""

    def __init__(self, inner: IndexRetriever) -> None:
        super().__init__(inner.corpus, inner._index, inner.kind)
        self.batches: list[int] = []
        self.go_on = threading.Event()

    def search_many(self, queries: Any, k: int) -> list[list[Passage]]:
        self.batches.append(len(queries))
        assert self.go_on.wait(30)
        if "fail" in queries:
            raise OSError("disk on fire")
        return super().search_many(queries, k)


@pytest.fixture(scope="module")
def retriever(tmp_path_factory: pytest.TempPathFactory) -> IndexRetriever:
    return small_retriever(tmp_path_factory.mktemp("corpus") / "c", TEXTS)


def test_both_request_forms(retriever: IndexRetriever) -> None:
    with served(retriever) as address:
        expected = [{"id": p.id, "contents": p.contents} for p in retriever.search("mayor of Town 7", 2)]
        assert expected[0] == {"id": "7", "contents": TEXTS[7]}
        assert ask(address, {"query": "mayor of Town 7", "topk": 2}) == (200, {"result": [expected]})
        status, told = ask(
            address, {"queries": ["mayor of Town 7", "Person9", "???"], "topk": 2, "return_scores": True}
        )
        assert status == 200 and [len(rows) for rows in told["result"]] == [2, 1, 0]
        assert told["result"][0][0]["document"] == expected[0] and told["result"][0][0]["score"] > 0
        assert ask(address, {"queries": []}) == (200, {"result": []})
        assert len(ask(address, {"query": "mayor", "topk": None})[1]["result"][0]) == 3
        health = json.loads(HTTP.request("GET", f"{address}/health").data)
        corpus = retriever.corpus
        assert health == {"status": "ok", "corpus_hash": corpus.hash, "num_passages": 40, "index": "bm25"}
        told = metrics(address)
        assert told['t2po_search_requests_total{status="200"}'] == 4 and told["t2po_search_queries_total"] == 5
        assert told["t2po_search_request_seconds_count"] == 4 and told["t2po_search_waiting_queries"] == 0


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "not JSON"),
        (b"\xff", 400, "not JSON"),
        ([], 400, "JSON list"),
        ({}, 400, "queries"),
        ({"query": "a", "queries": ["a"]}, 400, "either"),
        ({"query": 3}, 400, "a text"),
        ({"queries": "text"}, 400, "list of texts"),
        ({"queries": ["a", None]}, 400, "list of texts"),
        ({"query": "a", "topk": 0}, 400, "topk"),
        ({"query": "a", "topk": True}, 400, "topk"),
        ({"query": "a", "topk": 1e999}, 400, "topk"),
        ({"query": "a", "return_scores": "yes"}, 400, "return_scores"),
        ({"query": "a", "topk": 11}, 422, "at most 10"),
        ({"queries": ["a"] * 6}, 422, "may hold 5"),
        ({"query": "a" * 1001}, 422, "at most 1000"),
        ({"query": "a" * 20_000}, 413, "larger than 10000 bytes"),
    ],
)
def test_limits_and_mistakes_are_named(retriever: IndexRetriever, body: Any, status: int, message: str) -> None:
    with served(retriever, _SMALL) as address:
        found, told = ask(address, body)
        assert found == status and message in told["error"]
        # and it still answers
        assert ask(address, {"query": "mayor of Town 7", "topk": 1})[0] == 200


_SMALL = ServerLimits(topk=10, queries=5, query_characters=1000, request_bytes=10_000)


def test_other_addresses_and_odd_queries(retriever: IndexRetriever) -> None:
    with served(retriever) as address:
        assert ask(address, {"query": "a"}, "/nothing")[0] == 404
        assert ask(address, b"[" * 100_000)[0] == 400
        assert HTTP.request("GET", f"{address}/retrieve").status == 405
        for query in ("\x00\x07", "\ud800", "'\"); --", "x" * 10_000, "北京 🦀", ""):
            assert ask(address, {"query": query}) == (200, {"result": [[]]})


def test_requests_that_come_together_are_searched_together(retriever: IndexRetriever) -> None:
    slow = Slow(retriever)
    with served(slow, ServerLimits(threads=1, batch_queries=16)) as address, ThreadPoolExecutor(32) as pool:
        asked = [pool.submit(ask, address, {"query": f"mayor of Town {number}", "topk": 1}) for number in range(32)]
        _until(lambda: metrics(address)["t2po_search_waiting_queries"] == 32)  # the event loop lives while it searches
        slow.go_on.set()
        answers = [found.result(30) for found in asked]
        told = metrics(address)
    assert [told["result"][0][0]["id"] for _, told in answers] == [str(number) for number in range(32)]
    assert sum(slow.batches) == 32 and len(slow.batches) <= 8 and max(slow.batches) <= 16
    assert told["t2po_search_batch_queries_count"] == len(slow.batches)
    assert told["t2po_search_batch_queries_sum"] == 32


def _until(holds: Callable[[], bool], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_requests_of_one_batch_get_their_own_number_of_passages(retriever: IndexRetriever) -> None:
    slow = Slow(retriever)
    with served(slow, ServerLimits(threads=1)) as address, ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, address, {"query": "mayor", "topk": k}) for k in (1, 5, 3, 2)]
        _until(lambda: metrics(address)["t2po_search_waiting_queries"] == 4)
        slow.go_on.set()
        assert [len(found.result(30)[1]["result"][0]) for found in asked] == [1, 5, 3, 2]


def test_a_failing_index_and_too_many_waiting(retriever: IndexRetriever) -> None:
    slow = Slow(retriever)
    limits = ServerLimits(threads=1, waiting_queries=4)
    with served(slow, limits) as address, ThreadPoolExecutor(8) as pool:
        failing = pool.submit(ask, address, {"query": "fail"})
        _until(lambda: len(slow.batches) == 1)
        waiting = pool.submit(ask, address, {"queries": ["mayor"] * 3})
        _until(lambda: metrics(address)["t2po_search_waiting_queries"] == 4)
        assert ask(address, {"query": "one more"}) == (503, {"error": "4 queries are waiting, 4 may: try again"})
        slow.go_on.set()
        assert failing.result(30) == (500, {"error": "the search failed: OSError: disk on fire"})
        assert waiting.result(30)[0] == 200  # it was in another batch
        assert metrics(address)['t2po_search_requests_total{status="503"}'] == 1


def test_a_search_that_takes_too_long(retriever: IndexRetriever) -> None:
    slow = Slow(retriever)
    with served(slow, ServerLimits(answer_s=0.1)) as address:
        status, told = ask(address, {"query": "mayor"})
        assert status == 503 and "within 0.1 s" in told["error"]
        slow.go_on.set()
        assert ask(address, {"query": "mayor"})[0] == 200


@pytest.mark.parametrize("dialect", ["queries", "query"])
def test_the_client_finds_what_the_index_finds(retriever: IndexRetriever, dialect: Any) -> None:
    with served(retriever) as address:
        client = HttpRetriever(address, dialect=dialect)
        assert client.check()["corpus_hash"] == retriever.corpus.hash
        for query in ("mayor of Town 7", "Größe", "nothing like it", "\ud800\x00"):
            assert client.search(query, 3) == retriever.search(query, 3)
        assert HttpRetriever(address + "/retrieve/").search("Person9", 1)[0].id == "9"
        assert client.counts() == {"searches": 4, "retried": {}, "given_up": {}}


def test_the_environment_plays_over_the_service(retriever: IndexRetriever) -> None:
    with served(retriever) as address:
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
        client = HttpRetriever(address, timeout_s=0.2, tries=2, wait_s=0.0)
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


def test_many_threads_share_one_client(retriever: IndexRetriever) -> None:
    with served(retriever) as address, ThreadPoolExecutor(16) as pool:
        client = HttpRetriever(address)
        found = list(pool.map(lambda n: client.search(f"mayor of Town {n % 40}", 1)[0].id, range(200)))
    assert found == [str(number % 40) for number in range(200)]
    assert client.counts()["searches"] == 200


# --- the program ----------------------------------------------------------------------------------------------------

_PROGRAM = """
import sys
from pathlib import Path
from envs.search.server import serve
sys.exit(serve(port=int(sys.argv[1]), data_dir=Path(sys.argv[2]), report=lambda line: print(line, flush=True)))
"""


@contextlib.contextmanager
def program(port: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", _PROGRAM, str(port), str(suite_data())]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(30)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_program_stops_cleanly(number: signal.Signals) -> None:
    with program(0) as process:
        assert process.stdout
        line = next(line for line in process.stdout if " at http" in line)
        assert "searching 12114 passages of factbook (bm25) at http://127.0.0.1:" in line
        client = HttpRetriever(line.split(" at ")[1].strip())
        assert "Astana" in client.search("capital Kazakhstan", 3)[0].contents
        process.send_signal(number)
        rest, _ = process.communicate(timeout=60)
        assert process.returncode == 0 and "stopping" in rest and "Traceback" not in rest


def test_requests_under_way_are_finished_at_the_stop(retriever: IndexRetriever) -> None:
    slow = Slow(retriever)
    with ThreadPoolExecutor(1) as pool:
        with served(slow, ServerLimits(stop_s=20)) as address:
            asked = pool.submit(ask, address, {"query": "mayor of Town 7", "topk": 1})
            _until(lambda: len(slow.batches) == 1)
            threading.Timer(0.5, slow.go_on.set).start()
        status, told = asked.result(30)
    assert status == 200 and told["result"][0][0]["id"] == "7"


def test_a_port_that_is_taken(retriever: IndexRetriever) -> None:
    async def twice(port: int) -> None:
        async with running_server(retriever, port=port):
            pass

    with served(retriever) as address, pytest.raises(DataError, match="cannot serve searches on 127.0.0.1:.*another"):
        asyncio.run(twice(int(address.rsplit(":", 1)[1])))


def test_the_program_without_a_corpus(tmp_path: Path) -> None:
    from envs.search.server import serve

    with pytest.raises(DataError, match="no corpus 'wiki-18'"):
        serve("wiki-18", data_dir=tmp_path)
