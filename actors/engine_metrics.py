"""The engine's own metrics over HTTP, on loopback: what vLLM counts of its requests, its cache and its time.

Owns: the server that hands them out, and waiting for its port. Called by `actors.inference`. Must not know: what the
engine does, who scrapes.

vLLM's statistics live in the process of AsyncLLM, which is the inference actor's: its registry is served, nothing is
computed here.
"""

from __future__ import annotations

import time

from prometheus_client import start_http_server

from actors.engine import InferenceError

ADDRESS = "127.0.0.1"
POLL_S = 0.1


class EngineMetrics:
    """`http://127.0.0.1:PORT/metrics` from construction until `close`."""

    def __init__(self, port: int, timeout_s: float = 10.0) -> None:
        """Waits for the port: where this server replaces a dead one, the kernel may not have freed it yet. Blocks.

        Raises InferenceError when the port is still taken after `timeout_s`."""
        from vllm.v1.metrics.prometheus import get_prometheus_registry

        registry = get_prometheus_registry()
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                self._server, self._thread = start_http_server(port, addr=ADDRESS, registry=registry)
                return
            except OSError as error:
                if time.monotonic() > deadline:
                    raise InferenceError(
                        f"inference.metrics_port: cannot serve the engine's metrics on {ADDRESS}:{port} "
                        f"({error.strerror or error}); end the program that uses the port, choose another one, or set "
                        "inference.metrics_port=0 to do without"
                    ) from error
            time.sleep(POLL_S)

    def close(self) -> None:
        """Stop serving; returns when the port is free."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)
