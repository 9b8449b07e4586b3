"""The retrieval service on loopback: both request forms, batches, limits, failures, a clean stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from envs.data_folder import DataError
from envs.search.client import HttpRetriever
from envs.search.retriever import IndexRetriever
from envs.search.server import ServerLimits, running_server
from tests.integration.search_service import HTTP, TEXTS, Slow, ask, metrics, served, until
from tests.unit.search_suite import suite_data


def test_both_request_forms(town_retriever: IndexRetriever) -> None:
    with served(town_retriever) as address:
        expected = [{"id": p.id, "contents": p.contents} for p in town_retriever.search("mayor of Town 7", 2)]
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
        corpus = town_retriever.corpus
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
def test_limits_and_mistakes_are_named(town_retriever: IndexRetriever, body: Any, status: int, message: str) -> None:
    with served(town_retriever, _SMALL) as address:
        found, told = ask(address, body)
        assert found == status and message in told["error"]
        # and it still answers
        assert ask(address, {"query": "mayor of Town 7", "topk": 1})[0] == 200


_SMALL = ServerLimits(topk=10, queries=5, query_characters=1000, request_bytes=10_000)


def test_other_addresses_and_odd_queries(town_retriever: IndexRetriever) -> None:
    with served(town_retriever) as address:
        assert ask(address, {"query": "a"}, "/nothing")[0] == 404
        assert ask(address, b"[" * 100_000)[0] == 400
        assert HTTP.request("GET", f"{address}/retrieve").status == 405
        for query in ("\x00\x07", "\ud800", "'\"); --", "x" * 10_000, "北京 🦀", ""):
            assert ask(address, {"query": query}) == (200, {"result": [[]]})


def test_requests_that_come_together_are_searched_together(town_retriever: IndexRetriever) -> None:
    slow = Slow(town_retriever)
    with served(slow, ServerLimits(threads=1, batch_queries=16)) as address, ThreadPoolExecutor(32) as pool:
        asked = [pool.submit(ask, address, {"query": f"mayor of Town {number}", "topk": 1}) for number in range(32)]
        until(lambda: metrics(address)["t2po_search_waiting_queries"] == 32)  # the event loop lives while it searches
        slow.go_on.set()
        answers = [found.result(30) for found in asked]
        told = metrics(address)
    assert [told["result"][0][0]["id"] for _, told in answers] == [str(number) for number in range(32)]
    assert sum(slow.batches) == 32 and len(slow.batches) <= 8 and max(slow.batches) <= 16
    assert told["t2po_search_batch_queries_count"] == len(slow.batches)
    assert told["t2po_search_batch_queries_sum"] == 32


def test_requests_of_one_batch_get_their_own_number_of_passages(town_retriever: IndexRetriever) -> None:
    slow = Slow(town_retriever)
    with served(slow, ServerLimits(threads=1)) as address, ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, address, {"query": "mayor", "topk": k}) for k in (1, 5, 3, 2)]
        until(lambda: metrics(address)["t2po_search_waiting_queries"] == 4)
        slow.go_on.set()
        assert [len(found.result(30)[1]["result"][0]) for found in asked] == [1, 5, 3, 2]


def test_a_failing_index_and_too_many_waiting(town_retriever: IndexRetriever) -> None:
    slow = Slow(town_retriever)
    limits = ServerLimits(threads=1, waiting_queries=4)
    with served(slow, limits) as address, ThreadPoolExecutor(8) as pool:
        failing = pool.submit(ask, address, {"query": "fail"})
        until(lambda: len(slow.batches) == 1)
        waiting = pool.submit(ask, address, {"queries": ["mayor"] * 3})
        until(lambda: metrics(address)["t2po_search_waiting_queries"] == 4)
        assert ask(address, {"query": "one more"}) == (503, {"error": "4 queries are waiting, 4 may: try again"})
        slow.go_on.set()
        assert failing.result(30) == (500, {"error": "the search failed: OSError: disk on fire"})
        assert waiting.result(30)[0] == 200  # it was in another batch
        assert metrics(address)['t2po_search_requests_total{status="503"}'] == 1


def test_a_search_that_takes_too_long(town_retriever: IndexRetriever) -> None:
    slow = Slow(town_retriever)
    with served(slow, ServerLimits(answer_s=0.1)) as address:
        status, told = ask(address, {"query": "mayor"})
        assert status == 503 and "within 0.1 s" in told["error"]
        slow.go_on.set()
        assert ask(address, {"query": "mayor"})[0] == 200


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


def test_requests_under_way_are_finished_at_the_stop(town_retriever: IndexRetriever) -> None:
    slow = Slow(town_retriever)
    with ThreadPoolExecutor(1) as pool:
        with served(slow, ServerLimits(stop_s=20)) as address:
            asked = pool.submit(ask, address, {"query": "mayor of Town 7", "topk": 1})
            until(lambda: len(slow.batches) == 1)
            threading.Timer(0.5, slow.go_on.set).start()
        status, told = asked.result(30)
    assert status == 200 and told["result"][0][0]["id"] == "7"


def test_a_port_that_is_taken(town_retriever: IndexRetriever) -> None:
    async def twice(port: int) -> None:
        async with running_server(town_retriever, port=port):
            pass

    with (
        served(town_retriever) as address,
        pytest.raises(DataError, match="cannot serve searches on 127.0.0.1:.*another"),
    ):
        asyncio.run(twice(int(address.rsplit(":", 1)[1])))


def test_the_program_without_a_corpus(tmp_path: Path) -> None:
    from envs.search.server import serve

    with pytest.raises(DataError, match="no corpus 'wiki-18'"):
        serve("wiki-18", data_dir=tmp_path)
