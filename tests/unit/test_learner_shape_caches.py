"""A learner on a CPU keeps compiled kernels of few shapes: its memory does not grow with every new one."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from learner.learner_actor import SHAPE_CACHES, actor_options
from learner.settings import LearnerSettings

GROWTH = """
import psutil, torch
torch.set_num_threads(1)
layer = torch.nn.Linear(256, 512, dtype=torch.bfloat16)
def private():
    memory = psutil.Process().memory_info()
    return (memory.rss - memory.shared) / 1e6
def work(first, last):
    for rows in range(first, last):
        layer(torch.ones(rows, 256, dtype=torch.bfloat16)).sum().backward()
work(900, 1000)
before = private()
work(100, 500)
print(private() - before)
"""


def environment_of(num_gpus: int) -> dict[str, Any]:
    found: dict[str, Any] = actor_options(LearnerSettings(), num_gpus)["runtime_env"]["env_vars"]
    return found


def test_caches_are_bounded_on_a_cpu_alone() -> None:
    assert SHAPE_CACHES.items() <= environment_of(0).items()
    assert not SHAPE_CACHES.keys() & environment_of(1).keys()


@pytest.mark.slow
def test_memory_does_not_grow_with_every_shape() -> None:
    """Every length is new; with torch's own bounds 400 of them leave their kernels behind."""

    def growth(caches: dict[str, str]) -> float:
        # PATH alone: whatever bounds this machine sets for torch are not what is tested.
        environment = {"PATH": "/usr/bin:/bin", **caches}
        done = subprocess.run(
            [sys.executable, "-c", GROWTH], env=environment, capture_output=True, timeout=600, check=True
        )
        return float(done.stdout)

    unbounded, bounded = growth({}), growth(SHAPE_CACHES)
    print(f"{unbounded:.0f} MB without bounds, {bounded:.0f} MB with them")
    assert bounded < max(unbounded / 2, 10)
