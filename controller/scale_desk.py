"""Where requests to scale a run arrive: taken from its folder, done, answered.

Owns: `ScaleDesk`, what a request may hold. Called by `controller.training_run` once a second. Must not know: how actors
join and leave (`controller.scaling`), how learner ranks are changed.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from controller.adjustments import Adjustment, note_adjustment
from controller.causes import cause_of
from controller.config import RunConfig
from controller.control import Control, Request
from controller.run_size import ScaleError, Size
from controller.scaling import Scaling

logger = logging.getLogger(__name__)

KEYS = {"envs": "rollout.num_env_actors", "inference": "inference.num_servers"}
"""What stays for later lives of the run, and under which knob."""


class ScaleDesk:
    """`look` takes what came; each request is served beside the loop."""

    def __init__(
        self,
        config: RunConfig,
        run: Path,
        scaling: Scaling,
        step: Callable[[], int],
        change_learners: Callable[[int], None],
        note: Callable[[str], None],
    ) -> None:
        """`step`: how many are done. `change_learners(n)` is called for another number of ranks; it does not wait.
        `note`: tells a person."""
        self._config = config
        self._run = run
        self._scaling = scaling
        self._step = step
        self._change_learners = change_learners
        self._note = note
        self._control = Control(run)
        self._tasks: set[asyncio.Task[None]] = set()

    def look(self) -> None:
        for request in self._control.take():
            task = asyncio.create_task(self._serve(request), name=f"scale {request.id}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def ask(self, size: Size) -> None:
        """The run's own wish (`controller.autoscaling`): served as a person's, answered in the log."""
        task = asyncio.create_task(self._serve_wish(size), name="autoscaling")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """What is under way is given up; it is answered so."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, request: Request) -> None:
        """The boundary that answers: whatever becomes of a request, the run goes on."""
        try:
            text = await self._done(request.content)
        except asyncio.CancelledError:
            self._control.answer(request.id, "the run is ending", refused=True)
            raise
        except Exception as error:
            logger.warning("scaling was refused: %s", cause_of(error))
            text = str(error) if isinstance(error, ScaleError) else cause_of(error)
            self._control.answer(request.id, text, refused=True)
        else:
            self._control.answer(request.id, text)

    async def _serve_wish(self, size: Size) -> None:
        try:
            await self._done({"envs": size.envs, "inference": size.inference})
        except Exception as error:  # as for a person: the run goes on as it is
            logger.warning("autoscaling: %s", cause_of(error))
            self._note(f"autoscaling: {cause_of(error)}")

    async def _done(self, content: dict[str, Any]) -> str:
        size = size_of(content)
        if size.learners is not None:
            check_learners(size.learners, self._config)
        text = await self._scaling.to(size)
        changes = {key: content[name] for name, key in KEYS.items() if content.get(name) is not None}
        if changes:
            note_adjustment(self._run, Adjustment(self._step(), changes, f"t2po scale: {text}"))
            self._note(f"scaled: {text}")
        if size.learners is None:
            return text
        if size.learners == self._config.learner.num_ranks:
            return f"{text}; the learner has {size.learners} ranks already" if changes else "nothing to do"
        self._change_learners(size.learners)
        after = f"after the step under way the run is saved and goes on with {size.learners} learner ranks"
        return f"{text}; {after}" if changes else after


def size_of(content: dict[str, Any]) -> Size:
    """ScaleError names what is no size."""
    for name, value in content.items():
        if name not in ("envs", "inference", "learners"):
            raise ScaleError(f"{name} = {value!r}: there is no such part; use envs, inference or learners")
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise ScaleError(f"{name} = {value!r}: must be a whole number, at least 1")
    return Size(**content)


def check_learners(count: int, config: RunConfig) -> None:
    """On a CPU each rank needs cores of its own. GPUs are Ray's to count: the next life says which are missing."""
    cores = os.cpu_count() or 1
    on_gpus = config.learner.device == "gpu" or (config.learner.device == "auto" and _has_gpus())
    is_here = config.cluster.address in ("", "local")
    if is_here and not on_gpus and count * config.learner.num_threads > cores:
        raise ScaleError(
            f"learners = {count}: with learner.num_threads = {config.learner.num_threads} they need "
            f"{count * config.learner.num_threads} cores and the machine has {cores}: ask for fewer"
        )


def _has_gpus() -> bool:
    import ray

    return bool(ray.is_initialized() and ray.cluster_resources().get("GPU", 0.0) > 0)
