"""The Ray shell of an inference server.

Owns: nothing but the decorator and its limits. Created by the controller. Must not know: what a server does.
"""

from __future__ import annotations

import ray

from actors.inference import InferenceServer

MAX_CONCURRENCY = 1024


@ray.remote(num_cpus=1, max_concurrency=MAX_CONCURRENCY, max_restarts=0)
class InferenceActor(InferenceServer):
    """An `InferenceServer` in a process of its own; every method is a coroutine, so calls run side by side."""
