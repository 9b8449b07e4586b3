"""The engine's own metrics over HTTP, on loopback: what vLLM counts of its requests, its cache and its time.

Owns: the server that hands them out, and waiting for its port. Called by `actors.inference`. Must not know: what the
engine does, who scrapes.

vLLM's statistics live in the process of AsyncLLM, which is the inference actor's: its registry is served, nothing is
computed here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

from actors.engine import InferenceError

ADDRESS = "127.0.0.1"
POLL_S = 0.1


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: one line a scrape would fill the actor's log."""


class EngineMetrics:
    """`http://127.0.0.1:PORT/metrics` from construction until `close`."""

    def __init__(self, port: int, timeout_s: float = 10.0) -> None:
        """Waits for the port: where this server replaces a dead one, the kernel may not have freed it yet. Blocks.

        Raises InferenceError when the port is still taken after `timeout_s`."""
        from vllm.v1.metrics.prometheus import get_prometheus_registry

        app = _as_plain_text(make_wsgi_app(get_prometheus_registry()))
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                self._server = make_server(ADDRESS, port, app, _Server, handler_class=_Handler)
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise InferenceError(
                        f"inference.metrics_port: cannot serve the engine's metrics on {ADDRESS}:{port} "
                        f"({error.strerror or error}); end the program that uses the port, choose another one, or set "
                        "inference.metrics_port=0 to do without"
                    ) from error
            time.sleep(POLL_S)
        self._thread = threading.Thread(target=self._server.serve_forever, name="engine-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving; returns when the port is free."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)


def _as_plain_text(app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """The same in the plain format whatever is asked for: asked by a Prometheus 2 for OpenMetrics, prometheus_client
    0.26 writes `vllm:` as `vllm_`, and nothing that is known of vLLM's metrics would find them."""

    def plain(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return app({**environ, "HTTP_ACCEPT": "text/plain"}, start_response)

    return plain
