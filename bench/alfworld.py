"""Memory and speed of many ALFWorld environments in one process, as JSON.

Run: `python -m bench.alfworld --envs 128 --seconds 5 [--panel official-seen]`. Each environment plays admissible
commands at random and starts the next task when its game is over, as an environment actor would.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import time
from pathlib import Path

import numpy  # noqa: F401  what envs.records needs anyway: its memory belongs to the base


def resident_mb() -> float:
    """Resident memory of this process now, MB (10^6 bytes)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.alfworld", description=__doc__)
    parser.add_argument("--envs", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--panel", default="train")
    chosen = parser.parse_args()
    base = resident_mb()

    from envs.panel import load_panel
    from envs.settings import EnvSettings
    from envs.text_env import make_env

    panel = load_panel("alfworld", chosen.panel)
    loaded = resident_mb()
    settings = EnvSettings(max_turns=50)
    envs = [make_env(settings) for _ in range(chosen.envs)]
    rng = random.Random(0)
    started = time.perf_counter()
    infos = [env.reset(options={"task": panel.tasks[k % len(panel.tasks)]})[1] for k, env in enumerate(envs)]
    reset_s = time.perf_counter() - started
    ready = resident_mb()

    steps = resets = 0
    started = time.perf_counter()
    while time.perf_counter() - started < chosen.seconds:
        for k, env in enumerate(envs):
            _, _, terminated, truncated, infos[k] = env.step(rng.choice(infos[k]["admissible"]))
            steps += 1
            if terminated or truncated:
                infos[k] = env.reset(options={"task": rng.choice(panel.tasks)})[1]
                resets += 1
    elapsed = time.perf_counter() - started
    report = {
        "panel": panel.name,
        "panel_hash": panel.hash,
        "envs": chosen.envs,
        "steps": steps,
        "resets": resets,
        "steps_per_s": round(steps / elapsed, 1),
        "first_reset_ms": round(1000 * reset_s / chosen.envs, 2),
        "memory_mb": {
            "python_numpy": round(base, 1),
            "panel_loaded": round(loaded, 1),
            "envs_ready": round(ready, 1),
            "after_run": round(resident_mb(), 1),
            "peak": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1),
        },
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
