"""The retrieval service: `POST /retrieve`, `/health`, `/metrics`, over HTTP.

Owns: the two request forms in the wild, limits, metrics, start and stop. Called by the CLI (`t2po serve search`). Must
not know: questions, environments.

Request: `{"queries": [text, ...], "topk": 3, "return_scores": true}` (Search-R1), or `"query": text` in place of the
list (verl-agent, SkyRL). Reply: `{"result": [[{"document": {"id", "contents"}, "score"}, ...] a query]}`; without
return_scores the documents themselves. An error is `{"error": sentence}`: 400 for what is no request, 413 and 422 for
one that is too large, 503 while too many wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from envs.data_folder import DataError
from envs.search.batches import Batches, TooBusy
from envs.search.corpus import Passage
from envs.search.retriever import FACTBOOK, IndexKind, IndexRetriever, local_retriever

_LOG = logging.getLogger(__name__)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """What one request may ask for, how requests are gathered, and how long things may take."""

    request_bytes: int = 1024 * 1024
    queries: int = 512
    query_characters: int = 10_000
    topk: int = 100
    waiting_queries: int = 8192
    window_s: float = 0.002
    batch_queries: int = 64
    threads: int = 2
    answer_s: float = 60.0
    stop_s: float = 10.0


class RequestError(ValueError):
    """A request that is not answered; `status` and the sentence go back."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True, slots=True)
class Wanted:
    """One understood request."""

    queries: list[str]
    topk: int
    scores: bool


def read_request(body: bytes, limits: ServerLimits) -> Wanted:
    """Both request forms. Raises RequestError that names what is wrong, or the limit."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"the body is not JSON: {error}") from error
    if not isinstance(asked, dict):
        raise RequestError(400, f"the body is a JSON {type(asked).__name__}, not an object with queries or query")
    if ("queries" in asked) == ("query" in asked):
        raise RequestError(400, 'name either "queries" (a list of texts) or "query" (a text)')
    queries = asked["queries"] if "queries" in asked else [asked["query"]]
    if not isinstance(queries, list) or not all(isinstance(query, str) for query in queries):
        raise RequestError(400, '"queries" has to be a list of texts, and "query" a text')
    topk, scores = asked.get("topk"), asked.get("return_scores", False)
    topk = 3 if topk is None else topk
    if isinstance(topk, bool) or not isinstance(topk, int) or topk < 1:
        raise RequestError(400, f'"topk" has to be a whole number from 1, not {json.dumps(topk)[:50]}')
    if not isinstance(scores, bool):
        raise RequestError(400, '"return_scores" has to be true or false')
    if len(queries) > limits.queries:
        raise RequestError(422, f"{len(queries)} queries: a request may hold {limits.queries}")
    if topk > limits.topk:
        raise RequestError(422, f"topk {topk}: at most {limits.topk}")
    longest = max((len(query) for query in queries), default=0)
    if longest > limits.query_characters:
        raise RequestError(422, f"a query of {longest} characters: at most {limits.query_characters}")
    return Wanted(queries, topk, scores)


def reply_body(found: list[list[Passage]], scores: bool) -> bytes:
    """The reply to one request."""

    def row(passage: Passage) -> dict[str, Any]:
        document = {"id": passage.id, "contents": passage.contents}
        return {"document": document, "score": passage.score} if scores else document

    return json.dumps({"result": [[row(passage) for passage in passages] for passages in found]}).encode()


class _Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("t2po_search_requests", "Requests by HTTP status.", ["status"], registry=self.registry)
        self.queries = Counter("t2po_search_queries", "Queries answered.", registry=self.registry)
        self.seconds = Histogram(
            "t2po_search_request_seconds", "Time to answer a request.", buckets=_SECONDS, registry=self.registry
        )
        self.batch = Histogram(
            "t2po_search_batch_queries",
            "Queries that were searched for together.",
            buckets=_SIZES,
            registry=self.registry,
        )
        self.waiting = Gauge("t2po_search_waiting_queries", "Queries not answered yet.", registry=self.registry)


class _Service:
    def __init__(self, retriever: IndexRetriever, limits: ServerLimits) -> None:
        self._retriever = retriever
        self._limits = limits
        self._metrics = _Metrics()
        self.batches = Batches(
            retriever.search_many,
            window_s=limits.window_s,
            largest=limits.batch_queries,
            most_waiting=limits.waiting_queries,
            threads=limits.threads,
            on_batch=self._metrics.batch.observe,
        )
        self._metrics.waiting.set_function(lambda: self.batches.num_waiting)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=self._limits.request_bytes, middlewares=[self._errors])
        app.router.add_post("/retrieve", self._retrieve)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._serve_metrics)
        return app

    @web.middleware
    async def _errors(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Every failure becomes a JSON sentence; searches are counted and timed."""
        started = time.perf_counter()
        try:
            reply = await handler(request)
        except RequestError as error:
            reply = _sentence(error.status, str(error))
        except TooBusy as error:
            reply = _sentence(503, f"{error}: try again", {"Retry-After": "1"})
        except TimeoutError:
            reply = _sentence(503, f"no answer within {self._limits.answer_s:g} s: try again", {"Retry-After": "1"})
        except web.HTTPRequestEntityTooLarge:
            reply = _sentence(413, f"the body is larger than {self._limits.request_bytes} bytes")
        except web.HTTPException as error:
            reply = _sentence(error.status, f"{request.method} {request.path}: {error.reason}")
        except Exception as error:
            _LOG.exception("a search failed")
            reply = _sentence(500, f"the search failed: {type(error).__name__}: {error}")
        if request.path == "/retrieve":
            self._metrics.requests.labels(str(reply.status)).inc()
            self._metrics.seconds.observe(time.perf_counter() - started)
        return reply

    async def _retrieve(self, request: web.Request) -> web.Response:
        wanted = read_request(await request.read(), self._limits)
        async with asyncio.timeout(self._limits.answer_s):
            found = await self.batches.search(wanted.queries, wanted.topk)
        self._metrics.queries.inc(len(wanted.queries))
        return web.Response(body=reply_body(found, wanted.scores), content_type="application/json")

    async def _health(self, _: web.Request) -> web.Response:
        corpus = self._retriever.corpus
        told = {"status": "ok", "corpus_hash": corpus.hash, "num_passages": len(corpus), "index": self._retriever.kind}
        return web.json_response(told)

    async def _serve_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _sentence(status: int, sentence: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": sentence}, status=status, headers=headers)


@contextlib.asynccontextmanager
async def running_server(
    retriever: IndexRetriever, host: str = "127.0.0.1", port: int = 8000, limits: ServerLimits | None = None
) -> AsyncIterator[str]:
    """The service while the block runs; gives its address. Port 0 takes a free one. On leaving, requests under way are
    finished for at most `stop_s`. Raises DataError when the port cannot be had."""
    limits = limits or ServerLimits()
    service = _Service(retriever, limits)
    runner = web.AppRunner(service.app(), access_log=None, shutdown_timeout=limits.stop_s)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise DataError(
                f"cannot serve searches on {host}:{port} ({error.strerror or error}): end the program that uses the "
                "port, or choose another one"
            ) from error
        taken = runner.addresses[0][1]
        yield f"http://{f'[{host}]' if ':' in host else host}:{taken}"
    finally:
        await runner.cleanup()
        await service.batches.close()


def serve(
    corpus: str = FACTBOOK,
    kind: IndexKind = "bm25",
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: ServerLimits | None = None,
    data_dir: Path | None = None,
    report: Callable[[str], None] = print,
) -> int:
    """Serve a corpus of this machine until SIGTERM or SIGINT. Loopback by default: the service asks nobody who they
    are. Raises DataError for a corpus that is not there and a port that cannot be had. `report` is told the
    address; 0 is the exit status of a clean stop."""
    retriever = local_retriever(corpus, kind, data_dir, lambda count: report(f"indexed {count} passages"))

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        async with running_server(retriever, host, port, limits) as address:
            report(f"searching {len(retriever.corpus)} passages of {corpus} ({kind}) at {address}/retrieve")
            await stop.wait()
            report("stopping: requests under way are finished")

    asyncio.run(run())
    return 0
