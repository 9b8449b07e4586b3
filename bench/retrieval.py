"""Time, size and memory of keyword search over product texts, as JSON.

Run: `python -m bench.retrieval --documents 1000 1181436 [--folder DIR]`. The texts are random: 60 to 120
words each out of 50,000 with Zipf frequencies; a query is 3 to 12 words of one text, as a shopper would type them. The
larger size is that of the full WebShop catalogue. An index that is in the folder already is searched, not built again.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

NUM_WORDS = 50_000


def resident_mb() -> float:
    """Resident memory of this process now, MB (10^6 bytes)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def random_words() -> list[str]:
    """Distinct words of 3 to 10 letters, the frequent ones first."""
    rng = random.Random(1)
    words: dict[str, None] = {}
    while len(words) < NUM_WORDS:
        syllables = [rng.choice("bcdfghklmnprstvwz") + rng.choice("aeiou") for _ in range(rng.randint(1, 4))]
        words["".join(syllables) + rng.choice(["", "n", "s", "r", "t", "ing", "ed"])] = None
    return list(words)


def random_texts(num_documents: int, seed: int = 2) -> Iterator[str]:
    words = np.array(random_words(), dtype=object)
    shares = np.cumsum(1 / np.arange(1, NUM_WORDS + 1))
    rng = np.random.default_rng(seed)
    left = num_documents
    while left:
        lengths = rng.integers(60, 121, size=min(left, 10_000))
        drawn = words[np.searchsorted(shares, rng.random(int(lengths.sum())) * shares[-1])]
        at = 0
        for length in lengths:
            yield " ".join(drawn[at : at + length])
            at += length
        left -= len(lengths)


def random_queries(count: int) -> list[str]:
    rng = random.Random(3)
    return [" ".join(rng.sample(text.split(), rng.randint(3, 12))) for text in random_texts(count, seed=4)]


class Timed:
    """Texts, and the seconds that making them took: these are no part of building an index."""

    def __init__(self, texts: Iterator[str]) -> None:
        self._texts = texts
        self.taken_s = self.taken_cpu_s = 0.0

    def __iter__(self) -> Iterator[str]:
        while True:
            started, cpu = time.perf_counter(), time.process_time()
            chunk = list(islice(self._texts, 10_000))
            self.taken_s += time.perf_counter() - started
            self.taken_cpu_s += time.process_time() - cpu
            if not chunk:
                return
            yield from chunk


def measure(folder: Path, num_documents: int, queries: list[str]) -> dict[str, Any]:
    from envs.retrieval.bm25 import Bm25Index

    base = resident_mb()
    report: dict[str, Any] = {"documents": num_documents}
    place = folder / f"bm25-{num_documents}"
    if not (place / "header.json").exists():
        texts = Timed(random_texts(num_documents))
        started, cpu = time.perf_counter(), time.process_time()
        Bm25Index.build(texts, folder=place)
        report["build_s"] = round(time.perf_counter() - started - texts.taken_s, 1)
        report["build_cpu_s"] = round(time.process_time() - cpu - texts.taken_cpu_s, 1)
        report["build_peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1)
        base = resident_mb()
    report["disk_mb"] = round(sum(path.stat().st_size for path in place.iterdir()) / 1e6, 1)
    started = time.perf_counter()
    index = Bm25Index.open(place)
    report["open_ms"] = round(1000 * (time.perf_counter() - started), 2)
    times = []
    for query in queries:
        started, cpu = time.perf_counter(), time.thread_time()
        index.search(query, 50)
        times.append((1000 * (time.perf_counter() - started), 1000 * (time.thread_time() - cpu)))
    warm = np.array(times[len(times) // 10 :])  # the first ones read the index from disk
    for column, name in enumerate(("query_ms", "query_cpu_ms")):
        report[name] = {f"p{share}": round(float(np.percentile(warm[:, column], share)), 3) for share in (50, 95, 99)}
    report["open_and_search_mb"] = round(resident_mb() - base, 1)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.retrieval", description=__doc__)
    parser.add_argument("--documents", type=int, nargs="+", default=[1_000, 1_181_436])
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="where indexes are kept (default: a temporary folder)")
    chosen = parser.parse_args()
    queries = random_queries(chosen.queries)
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary)
        print(json.dumps([measure(folder, number, queries) for number in chosen.documents], indent=2))


if __name__ == "__main__":
    main()
