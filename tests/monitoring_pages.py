"""Recorded answers of real exporters, and a small server that gives them out again, growing as they do.

From real ones on one machine, cut down to what the dashboards ask for: vLLM 0.32.0 after 64 requests, the agent of a
Ray 2.60.0 node with one actor, node_exporter 1.5.0.
"""

from __future__ import annotations

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

RECORDED = Path(__file__).resolve().parent / "recorded_runs"
STEPS = RECORDED / "gigpo-t2po.metrics.jsonl"
"""A whole run with TTI and TDS on ALFWorld: 24 steps, every column, rounded to six digits."""

PAGES = sorted((RECORDED / "exporters").glob("*.prom"))

REDIS_NAMES = (
    "redis_commands_processed_total", "redis_memory_max_bytes", "redis_memory_used_bytes", "redis_stream_length",
    "redis_stream_group_messages_pending", "redis_up",
)  # fmt: skip
"""Of prometheus-redis-exporter; tests/integration/test_monitoring.py asks a real one for them."""


def sample_names(page: Path) -> set[str]:
    """Names of the samples on a page."""
    lines = page.read_text(encoding="utf-8").splitlines()
    return {re.split(r"[{ ]", line)[0] for line in lines if line and not line.startswith("#")}


class GrowingPages:
    """`http://127.0.0.1:port/vllm` and so on; the n-th answer has n times the counts, so that they have a rate."""

    def __init__(self) -> None:
        self._asked: dict[str, int] = {}
        lock = threading.Lock()
        asked = self._asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                job = self.path.strip("/").split("/")[0]
                with lock:
                    asked[job] = asked.get(job, 0) + 1
                body = grown((RECORDED / "exporters" / f"{job}.prom").read_text(encoding="utf-8"), asked[job]).encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> GrowingPages:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)


def grown(page: str, times: int) -> str:
    """The page with its counts (counters, histograms) `times` as high."""
    counts = set(re.findall(r"# TYPE (\S+) (?:counter|histogram)", page))
    lines = []
    for line in page.splitlines():
        if line and not line.startswith("#"):
            sample, value = line.rsplit(" ", 1)
            name = re.split(r"[{ ]", line)[0]
            if name in counts or re.sub(r"_(bucket|sum|count|total)$", "", name) in counts:
                line = f"{sample} {float(value) * times}"
        lines.append(line)
    return "\n".join(lines) + "\n"
