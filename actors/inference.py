"""One inference server: vLLM's AsyncLLM with TTI inside, live weight updates, and Candidates out.

Owns: the server's state: its life, when requests and updates may come, what ends them. A request's way through the
engine is `actors.engine_replies`, an update's `actors.weight_update`. Called by `actors.inference_actor` and by tests.
Must not know: Ray, routers, trajectories, the learner.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import time
from typing import TYPE_CHECKING, Any

import psutil
from numpy.typing import ArrayLike

from actors.busy_spans import BusySpans, Span
from actors.candidate import SamplingSpec
from actors.engine import (
    GRACE_S,
    STOP_TIMEOUT_S,
    EngineError,
    InferenceError,
    check_model_folder,
    child_processes,
    end_processes,
    make_engine,
    prepare_environment,
)
from actors.engine_metrics import EngineMetrics
from actors.engine_replies import EngineReplies
from actors.settings import InferenceSettings, TTISettings
from actors.silence import Silence
from actors.weight_update import UpdateReport, WeightOffer, join_channel, offer_broadcast, offer_file, take_weights
from envs.records import Candidate, SignalRange

if TYPE_CHECKING:
    import torch
    from vllm.v1.engine.async_llm import AsyncLLM

__all__ = ["InferenceError", "InferenceServer", "SamplingSpec", "UpdateReport"]

logger = logging.getLogger(__name__)


class InferenceServer:
    """An engine of its own. States: new, starting, ready, updating, failed, stopped; only ready serves."""

    def __init__(self) -> None:
        self._state, self._since, self._reason = "new", time.time(), ""
        self._silence = Silence()
        self._busy = BusySpans()
        self._engine: AsyncLLM | None = None
        self._replies: EngineReplies | None = None
        self._settings = InferenceSettings()
        self._tti = TTISettings()
        self._version = 0
        self._tasks: set[asyncio.Task[Candidate]] = set()
        self._open = asyncio.Event()
        self._update_lock = asyncio.Lock()
        self._children: list[psutil.Process] = []
        self._gpu = ""
        self._has_channel = False
        self._metrics: EngineMetrics | None = None

    # ---- life ----

    async def start(self, model_path: str, settings: InferenceSettings, tti: TTISettings, seed: int) -> None:
        """Starts the engine; raises within `settings.start_timeout_s`, leaving no process behind."""
        if self._state != "new":
            raise InferenceError(f"inference server: start called in state {self._state!r}; make a new server")
        try:
            check_model_folder(model_path, settings)
        except EngineError as error:
            raise InferenceError(f"inference server: {error}") from None
        self._settings, self._tti = settings, tti
        self._enter("starting")
        before = set(child_processes())
        try:
            prepare_environment(settings)
            starting = asyncio.to_thread(make_engine, model_path, settings, tti, seed)
            engine, tokenizer = await asyncio.wait_for(starting, settings.start_timeout_s)
            self._engine = engine
            self._replies = EngineReplies(engine, tokenizer, settings)
            await asyncio.wait_for(engine.update_weight_version("0"), settings.start_timeout_s)
            self._gpu = (await asyncio.wait_for(engine.collective_rpc("t2po_gpu"), settings.start_timeout_s))[0]
            if settings.metrics_port:
                self._metrics = await asyncio.to_thread(EngineMetrics, settings.metrics_port)
        except BaseException as error:
            self._children = [process for process in child_processes() if process not in before]
            what = f"no answer in {settings.start_timeout_s} s" if isinstance(error, TimeoutError) else repr(error)
            await self._fail(f"engine for {model_path} did not start: {what}")
            if isinstance(error, Exception):
                raise InferenceError(f"inference server: {self._reason}") from error
            raise
        self._children = [process for process in child_processes() if process not in before]
        self._enter("ready")
        self._open.set()

    async def stop(self) -> None:
        """Ends the engine and every process of it."""
        if self._state != "failed":
            self._enter("stopped")
        await self._close("the server was stopped")

    async def status(self) -> dict[str, Any]:
        if self._state == "ready" and self._engine is not None and self._engine.errored:
            await self._fail("the engine died while nothing was asked of it")
        if self._state == "ready" and (silent_s := self._silence.seconds) > self._settings.request_timeout_s:
            await self._fail(
                f"the engine answered nothing for {silent_s:.0f} s, {len(self._tasks)} requests wait for it"
            )
        return {
            "state": self._state,
            "since": self._since,
            "seconds_in_state": time.time() - self._since,
            "reason": self._reason,
            "version": self._version,
            "in_flight": len(self._tasks),
            "served": self._replies.served if self._replies else 0,
            "pid": os.getpid(),
            "gpu": self._gpu,
        }

    def _enter(self, state: str, reason: str = "") -> None:
        self._state, self._since, self._reason = state, time.time(), reason
        self._silence.broken()
        self._note_busy()

    def _note_busy(self) -> None:
        """Called when requests come and go and when the state changes: requests that stand still are not served."""
        self._busy.switch(bool(self._tasks) and self._state == "ready")

    async def busy_spans(self) -> list[Span]:
        """When at least one request was being answered, since this was last asked."""
        return self._busy.take()

    async def _fail(self, reason: str) -> None:
        if self._state != "failed":
            self._enter("failed", reason)
            await self._close(reason)

    async def _close(self, reason: str) -> None:
        self._open.set()  # who waits for an update to end sees the state
        for task in self._tasks - {asyncio.current_task()}:
            task.cancel(reason)
        if self._replies is not None:
            self._replies.stop()
        metrics, self._metrics = self._metrics, None
        if metrics is not None:
            await asyncio.to_thread(metrics.close)
        engine, self._engine = self._engine, None
        if engine is not None:
            if engine.output_handler is not None:
                engine.output_handler.cancel()  # else it reports the engine's end as an error
            try:
                await asyncio.wait_for(asyncio.to_thread(engine.shutdown, GRACE_S), STOP_TIMEOUT_S)
            except TimeoutError:  # its processes are killed below, what is in ours goes with the actor
                logger.warning("the engine has not ended within %g s", STOP_TIMEOUT_S)
            del engine
            gc.collect()  # the engine is in reference cycles; freed at the interpreter's end it complains
        await asyncio.to_thread(end_processes, self._children)

    # ---- replies ----

    async def generate(
        self,
        request_id: str,
        prompt_ids: ArrayLike,
        seed: int,
        signal_range: SignalRange,
        sampling: SamplingSpec,
        epsilon: float | None = None,
    ) -> Candidate:
        """One reply; `gamma` and `kept` are the router's to fill in. `epsilon`: null, that of the settings.

        RequestRefused: asking again is of no use.
        """
        tti = self._tti if epsilon is None else self._tti.model_copy(update={"epsilon": epsilon})
        task = asyncio.create_task(self._reply(request_id, prompt_ids, seed, signal_range, sampling, tti))
        self._tasks.add(task)
        self._silence.asked()
        task.add_done_callback(self._forget)
        self._note_busy()
        timeout = self._settings.request_timeout_s
        try:
            return await asyncio.wait_for(task, timeout)
        except TimeoutError:
            raise InferenceError(
                f"inference server: request {request_id} had no reply in {timeout} s "
                f"({len(self._tasks)} in flight); raise inference.request_timeout_s or lower the load"
            ) from None
        except asyncio.CancelledError:
            if task.cancelled() and self._state in ("failed", "stopped"):
                raise InferenceError(self._unusable(f"request {request_id}")) from None
            raise

    def _forget(self, task: asyncio.Task[Candidate]) -> None:
        self._tasks.discard(task)
        self._silence.left(answered=not task.cancelled() and task.exception() is None)
        self._note_busy()

    async def _reply(
        self,
        request_id: str,
        prompt_ids: ArrayLike,
        seed: int,
        signal_range: SignalRange,
        sampling: SamplingSpec,
        tti: TTISettings,
    ) -> Candidate:
        if self._state == "updating":
            await self._open.wait()
        if self._state != "ready" or self._replies is None:
            raise InferenceError(self._unusable(f"request {request_id}"))
        try:
            return await self._replies.reply(request_id, prompt_ids, seed, signal_range, sampling, tti, self._version)
        except Exception as error:
            if type(error).__name__ != "EngineDeadError":
                raise
            await self._fail(f"the engine died: {error}")
            raise InferenceError(self._unusable(f"request {request_id}")) from error

    def _unusable(self, what: str) -> str:
        hint = "call start first" if self._state == "new" else "start another server"
        return f"{what}: inference server is {self._state} ({self._reason or 'no reason given'}); {hint}"

    # ---- weights ----

    async def update_weights(
        self, version: int, weights: dict[str, torch.Tensor], verify: bool = False
    ) -> UpdateReport:
        """Makes `weights` live as `version`. Requests in flight stand still meanwhile and then go on with them.

        A failure before the engine is touched leaves the server ready; a later one leaves it failed. `verify`: the
        report has the checksums of what arrived.
        """
        async with self._update_lock:
            self._check_update(version)
            async with offer_file(weights, verify) as offer:
                return await self._update(version, offer)

    async def open_channel(self, address: str, port: int, rank: int, num_ranks: int) -> None:
        """Joins the channel that weights come over: returns when the sender and all other ranks have joined too."""
        async with self._update_lock:
            if self._state != "ready" or self._engine is None:
                raise InferenceError(self._unusable("weight channel"))
            leave_first, self._has_channel = self._has_channel, True
            async with asyncio.timeout(self._settings.update_timeout_s):
                await join_channel(self._engine, address, port, rank, num_ranks, leave_first=leave_first)

    async def receive_weights(
        self, version: int, names: list[str], dtype_names: list[str], shapes: list[list[int]], verify: bool = False
    ) -> UpdateReport:
        """As `update_weights`, with weights that the sender broadcasts over the channel at the same time."""
        async with self._update_lock:
            self._check_update(version)
            return await self._update(version, offer_broadcast(names, dtype_names, shapes, verify))

    def _check_update(self, version: int) -> None:
        if self._state != "ready" or self._engine is None:
            raise InferenceError(self._unusable(f"weight update to version {version}"))
        if version <= self._version:
            raise InferenceError(f"weight update: version {version} must be above the live one, {self._version}")

    async def _update(self, version: int, offer: WeightOffer) -> UpdateReport:
        assert self._engine is not None
        self._open.clear()
        self._enter("updating")
        try:
            async with asyncio.timeout(self._settings.update_timeout_s):
                report = await take_weights(self._engine, offer, version)
        except BaseException as error:
            live, timeout = self._version, self._settings.update_timeout_s
            what = f"no answer in {timeout} s" if isinstance(error, TimeoutError) else repr(error)
            await self._fail(f"weight update from version {live} to {version} broke half-way: {what}")
            if isinstance(error, Exception):
                raise InferenceError(f"inference server: {self._reason}; start another server") from error
            raise
        self._version = version
        self._enter("ready")
        self._open.set()
        return report
