"""Search through a retrieval service: the same interface as a corpus of this machine, over HTTP.

Owns: `HttpRetriever`: what is retried, for how long, and what was given up. Called by the environment. Must not know:
questions, what the service searches in.

Retried: connection errors, time-outs and the answers 500, 502, 503 and 504, with longer and longer waits, up to `tries`
and up to `deadline_s` in all. Any other answer is a mistake that another try would repeat.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Literal

import urllib3
from urllib3.exceptions import HTTPError, LocationParseError, NewConnectionError, TimeoutError

from envs.search.corpus import Passage
from envs.search.retriever import RetrievalError

Dialect = Literal["queries", "query"]
RETRIED_STATUS = (500, 502, 503, 504)
CHECK_S = 5.0
"""How long the service may take to answer at the start of a run."""
LARGEST_REPLY = 16 * 1024 * 1024
"""Bytes of a reply that are read; more is no search result."""


class HttpRetriever:
    """Searches by `POST URL/retrieve`. One object serves all environments of a process; threads may share it.

    `timeout_s` bounds one try, `tries` and `deadline_s` a whole search (null: what all tries and waits can take);
    before try k+1 it waits k · `wait_s`. `dialect`: `queries` sends a list (Search-R1), `query` one text (verl-agent,
    SkyRL); `t2po serve search` understands both.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 30.0,
        tries: int = 10,
        wait_s: float = 1.0,
        deadline_s: float | None = None,
        dialect: Dialect = "queries",
        connections: int = 16,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        if not _is_address(url):
            raise RetrievalError(f"search service {url!r}: write its address as http://HOST:PORT")
        if deadline_s is None:
            deadline_s = tries * timeout_s + wait_s * tries * (tries - 1) / 2
        if tries < 1 or timeout_s <= 0 or wait_s < 0 or deadline_s <= 0:
            told = f"timeout_s {timeout_s}, tries {tries}, wait_s {wait_s}, deadline_s {deadline_s}"
            raise ValueError(f"{told}: tries has to be at least 1, wait_s not negative, the others positive")
        self.url = url.rstrip("/").removesuffix("/retrieve")
        self._timeout_s = timeout_s
        self._tries = tries
        self._wait_s = wait_s
        self._deadline_s = deadline_s
        self._dialect = dialect
        self._pause = pause
        # retries are counted here, so the library must not make its own; proxies are not asked: it is a near machine
        self._http = urllib3.PoolManager(maxsize=connections, retries=False)
        self._lock = threading.Lock()
        self._retried: Counter[str] = Counter()
        self._given_up: Counter[str] = Counter()
        self._searches = 0

    def check(self) -> dict[str, Any]:
        """Ask the service whether it is there, once; what it says about itself. Raises RetrievalError at once."""
        remedy = "start one with `t2po serve search`, or set the address of another"
        timeout_s = min(CHECK_S, self._timeout_s)
        try:
            status, content = self._request("GET", "/health", None, timeout_s)
            if status == 200 and isinstance(told := _json(content), dict):
                return told
            # the published services have no /health: a search tells as much
            self._try("test", 1, timeout_s)
            return {}
        except _Failure as error:
            raise RetrievalError(
                f"no search service at {self.url} ({error.reason}: {error.detail}): {remedy}"
            ) from error

    def search(self, query: str, k: int) -> list[Passage]:
        """Raises RetrievalError when the service stays away, or answers with what is no search result."""
        started = time.monotonic()
        with self._lock:
            self._searches += 1
        number = 0
        while True:
            number += 1
            left = self._deadline_s - (time.monotonic() - started)
            try:
                return self._try(query, k, max(min(self._timeout_s, left), 0.001))
            except _Failure as error:
                failure = error
            wait = number * self._wait_s
            spent = time.monotonic() - started
            if not failure.again or number >= self._tries or spent + wait >= self._deadline_s:
                with self._lock:
                    self._given_up[failure.reason] += 1
                tried = f"{failure.reason}; {number} tries in {spent:.1f} s"
                raise RetrievalError(
                    f"search service {self.url}: {failure.detail} ({tried}): see whether `t2po serve search` still runs"
                ) from failure
            with self._lock:
                self._retried[failure.reason] += 1
            self._pause(wait)

    def counts(self) -> Mapping[str, Any]:
        """`searches`, and `retried` and `given_up` by reason, since the start."""
        with self._lock:
            return {"searches": self._searches, "retried": dict(self._retried), "given_up": dict(self._given_up)}

    def _try(self, query: str, k: int, timeout_s: float) -> list[Passage]:
        asked: dict[str, Any] = {"queries": [query]} if self._dialect == "queries" else {"query": query}
        body = json.dumps({**asked, "topk": k, "return_scores": True}).encode()
        status, content = self._request("POST", "/retrieve", body, timeout_s)
        if status != 200:
            told = content[:300].decode("utf-8", "replace")
            raise _Failure(f"status {status}", f"it answers {told!r}", again=status in RETRIED_STATUS)
        try:
            return _passages(_json(content), k)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise _Failure("bad reply", f"its answer is no search result ({error!r})", again=False) from error

    def _request(self, method: str, path: str, body: bytes | None, timeout_s: float) -> tuple[int, bytes]:
        """Status and content. A service that sends a byte now and then is a time-out as well."""
        deadline = time.monotonic() + timeout_s
        headers = {"Content-Type": "application/json"} if body else {}
        try:
            reply = self._http.request(
                method, f"{self.url}{path}", body=body, headers=headers, timeout=timeout_s, preload_content=False
            )
            parts, size = [], 0
            try:
                while part := reply.read1(1 << 16):
                    parts.append(part)
                    size += len(part)
                    if size > LARGEST_REPLY:
                        raise _Failure("bad reply", f"its answer is longer than {LARGEST_REPLY} bytes", again=False)
                    if time.monotonic() > deadline:
                        raise _Failure("timeout", f"no whole answer within {timeout_s:.1f} s", again=True)
            except BaseException:
                reply.close()  # a connection with half an answer on it must not be used again
                raise
            reply.release_conn()
            return reply.status, b"".join(parts)
        except HTTPError as error:
            raise _Failure(_reason(error), str(error), again=True) from error


class _Failure(Exception):
    """One try that failed: the reason it is counted under, and whether another try may help."""

    def __init__(self, reason: str, detail: str, *, again: bool) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.again = again


def _is_address(url: str) -> bool:
    try:
        parsed = urllib3.util.parse_url(url)
    except LocationParseError:
        return False
    return parsed.scheme in ("http", "https") and bool(parsed.host)


def _reason(error: HTTPError) -> str:
    # the library counts a refused connection among its time-outs
    return "timeout" if isinstance(error, TimeoutError) and not isinstance(error, NewConnectionError) else "connection"


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _passages(told: Any, k: int) -> list[Passage]:
    """The passages of the one query that was asked, in either form of the reply."""
    found = []
    for row in told["result"][0][:k]:
        document, score = (row["document"], float(row["score"])) if "document" in row else (row, 0.0)
        found.append(Passage(str(document.get("id", "")), str(document["contents"]), score))
    return found
