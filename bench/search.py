"""Speed of Search QA's retrieval, as JSON: in one process, and over HTTP with many clients at once.

Run: `python -m bench.search --seconds 5 --clients 64 [--kind bm25] [--topk 3]`. Queries are the plans' of the training
questions. The server is a process of its own on loopback; the clients are threads of this one, as in an environment
actor, each with one request under way.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import signal
import statistics
import threading
import time
from multiprocessing.connection import Connection

from bench.alfworld import resident_mb


def in_process(kind: str, queries: list[str], topk: int, seconds: float) -> dict[str, float]:
    """One thread of this process."""
    from envs.search.retriever import local_retriever

    before = resident_mb()
    started = time.perf_counter()
    retriever = local_retriever(kind=kind)  # type: ignore[arg-type]
    opened_s = time.perf_counter() - started
    times: list[float] = []
    begun = time.perf_counter()
    for query in itertools.cycle(queries):
        started = time.perf_counter()
        retriever.search(query, topk)
        times.append(time.perf_counter() - started)
        if time.perf_counter() - begun > seconds:
            break
    report = _times(times, time.perf_counter() - begun)
    return {"open_s": round(opened_s, 3), "memory_mb": round(resident_mb() - before, 1), **report}


def environment(queries: list[str], topk: int, seconds: float) -> dict[str, float]:
    """Whole steps of one environment: search and the text of the observation."""
    from envs.panel import load_panel
    from envs.search.env import SearchEnv

    panel, env = load_panel("search", "train"), SearchEnv(topk=topk, max_turns=4)
    steps = 0
    started = time.perf_counter()
    for number, query in enumerate(itertools.cycle(queries)):
        if number % 3 == 0:
            env.reset(options={"task": panel.tasks[number % len(panel.tasks)]})
        env.step(f"<search>{query}</search>")
        steps += 1
        if time.perf_counter() - started > seconds:
            break
    return {"steps_per_s": round(steps / (time.perf_counter() - started), 1)}


def over_http(kind: str, queries: list[str], topk: int, seconds: float, clients: int) -> dict[str, float]:
    """Threads that ask a server of this machine, one request after the other each."""
    from envs.search.client import HttpRetriever

    told, telling = multiprocessing.Pipe(duplex=False)
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(kind, telling))
    server.start()
    try:
        if not told.poll(600):
            raise RuntimeError("the server did not start within 600 s")
        client = HttpRetriever(told.recv(), connections=clients)
        client.check()
        times: list[list[float]] = [[] for _ in range(clients)]
        over = threading.Event()

        def work(number: int) -> None:
            for query in itertools.cycle(queries[number::clients]):
                started = time.perf_counter()
                client.search(query, topk)
                times[number].append(time.perf_counter() - started)
                if over.is_set():
                    return

        threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
        begun = time.perf_counter()
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        over.set()
        for thread in threads:
            thread.join(60)
        elapsed = time.perf_counter() - begun
        report = _times([one for row in times for one in row], elapsed)
        return {"clients": clients, **report, "retried": sum(client.counts()["retried"].values())}
    finally:
        if server.pid and server.is_alive():
            os.kill(server.pid, signal.SIGTERM)
        server.join(30)


def _serve(kind: str, telling: Connection) -> None:
    from envs.search.server import serve

    def report(line: str) -> None:
        if " at http" in line:
            telling.send(line.split(" at ")[1].removesuffix("/retrieve"))

    serve(kind=kind, port=0, report=report)  # type: ignore[arg-type]


def _times(times: list[float], elapsed_s: float) -> dict[str, float]:
    cuts = statistics.quantiles(times, n=100)
    return {
        "queries_per_s": round(len(times) / elapsed_s, 1),
        "p50_ms": round(1000 * cuts[49], 3),
        "p95_ms": round(1000 * cuts[94], 3),
        "p99_ms": round(1000 * cuts[98], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.search", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--kind", default="bm25")
    parser.add_argument("--topk", type=int, default=3)
    chosen = parser.parse_args()

    from envs.search.panels import panel_questions

    queries = [hop.query for question in panel_questions("train") for hop in question.plan]
    report = {
        "kind": chosen.kind,
        "topk": chosen.topk,
        "queries": len(queries),
        "in_process": in_process(chosen.kind, queries, chosen.topk, chosen.seconds),
        "environment": environment(queries, chosen.topk, chosen.seconds),
        "server": over_http(chosen.kind, queries, chosen.topk, chosen.seconds, chosen.clients),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
