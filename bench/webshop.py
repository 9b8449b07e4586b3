"""Memory and speed of many WebShop environments in one process, as JSON.

Run: `python -m bench.webshop --envs 256 --seconds 5 [--panel official-train]`. Each environment takes valid actions at
random (searches for words of its goal, clicks) and starts the next task when one is over, as an environment actor
would. With T2PO_WEBSHOP_ORIGINAL (a checkout of princeton-nlp/WebShop) and T2PO_WEBSHOP_GENUINE (the official files)
the original plays the same walks, and `original` holds both speeds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import time
from pathlib import Path
from typing import Any

import numpy  # noqa: F401  what envs.records needs anyway: its memory belongs to the base

MEASURED_QUERIES = 1000


def resident_mb() -> float:
    """Resident memory of this process now, MB (10^6 bytes)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def choose(info: dict[str, Any], rng: random.Random) -> str:
    """A valid action: a search for some words of the goal, or a click."""
    can = info["admissible"]
    action = rng.choice(can) if can else "search["
    if not action.startswith("search["):
        return str(action)
    return f"search[{' '.join(rng.choices(info['goal'].split(), k=4))}]"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.webshop", description=__doc__)
    parser.add_argument("--envs", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--panel", default="train")
    chosen = parser.parse_args()
    base = resident_mb()

    from envs.panel import load_panel
    from envs.webshop.env import WebshopEnv
    from envs.webshop.tasks import engine_for, goal_of

    started = time.perf_counter()
    panel = load_panel("webshop", chosen.panel)
    catalogue = engine_for(panel.tasks[0])[0].catalogue
    load_s = time.perf_counter() - started
    loaded = resident_mb()
    envs = [WebshopEnv(max_turns=15) for _ in range(chosen.envs)]
    rng = random.Random(0)
    memory, infos = {}, []
    started = time.perf_counter()
    for number, env in enumerate(envs, 1):
        infos.append(env.reset(options={"task": panel.tasks[number % len(panel.tasks)]})[1])
        if number == 1:
            memory["one_env"] = round(resident_mb(), 1)
    reset_s = time.perf_counter() - started
    memory[f"{chosen.envs}_envs"] = round(resident_mb(), 1)

    steps = resets = purchases = 0
    started = time.perf_counter()
    while time.perf_counter() - started < chosen.seconds:
        for number, env in enumerate(envs):
            _, _, terminated, truncated, infos[number] = env.step(choose(infos[number], rng))
            steps += 1
            purchases += terminated
            if terminated or truncated:
                infos[number] = env.reset(options={"task": rng.choice(panel.tasks)})[1]
                resets += 1
    elapsed = time.perf_counter() - started
    after = resident_mb()

    words = sorted({word for task in panel.tasks[:500] for word in goal_of(task)[0].text.split()})
    queries = [" ".join(rng.choices(words, k=6)) for _ in range(MEASURED_QUERIES)]
    started = time.perf_counter()
    for query in queries:
        catalogue.search(query)
    search_s = time.perf_counter() - started
    report = {
        "panel": panel.name,
        "panel_hash": panel.hash,
        "products": len(catalogue),
        "envs": chosen.envs,
        "steps": steps,
        "resets": resets,
        "purchases": purchases,
        "steps_per_s": round(steps / elapsed, 1),
        "load_s": round(load_s, 2),
        "first_reset_ms": round(1000 * reset_s / chosen.envs, 3),
        "search_ms": round(1000 * search_s / MEASURED_QUERIES, 3),
        "memory_mb": {
            "python_numpy": round(base, 1),
            "panel_loaded": round(loaded, 1),
            **memory,
            "after_run": round(after, 1),
            "peak": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1),
        },
        "original": against_the_original(),
    }
    print(json.dumps(report, indent=2))


def against_the_original() -> dict[str, Any] | None:
    """Both speeds on the same walks; None where the original is not at hand."""
    checkout, data = (os.environ.get(f"T2PO_WEBSHOP_{name}", "") for name in ("ORIGINAL", "GENUINE"))
    if not checkout or not data:
        return None
    from envs.webshop.differential import compare_walks, make_pair
    from envs.webshop.official_files import find_files

    files = find_files(Path(data))
    pair = make_pair(Path(checkout), list(files.read_products()), dict(files.read_attributes()), files.read_human())
    report = compare_walks(pair, 20, 15, 0).report()
    return {
        name: report[name] for name in ("steps", "mismatches", "own_steps_per_s", "reference_steps_per_s", "speedup")
    }


if __name__ == "__main__":
    main()
