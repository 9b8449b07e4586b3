"""One inference server: vLLM's AsyncLLM with TTI inside, live weight updates, and Candidates out.

Owns: the server's state, a request's way through the engine, the collection of statistics, the update protocol.
Called by `actors.inference_actor` and by tests. Must not know: Ray, routers, trajectories, the learner.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from numpy.typing import ArrayLike

from actors.busy_spans import BusySpans, Span
from actors.candidate import SamplingSpec, candidate_of, sampling_params, text_of
from actors.engine import (
    GRACE_S,
    EngineError,
    check_model_folder,
    child_processes,
    end_processes,
    make_engine,
    prepare_environment,
)
from actors.reply_statistics import FetchError, ReplyStatistics
from actors.settings import InferenceSettings, TTISettings
from actors.tti_request import RequestRefused
from envs.records import Candidate, SignalRange

if TYPE_CHECKING:
    import torch
    from vllm import RequestOutput
    from vllm.v1.engine.async_llm import AsyncLLM

__all__ = ["InferenceError", "InferenceServer", "SamplingSpec", "UpdateReport"]


class InferenceError(RuntimeError):
    """A server that cannot do what it was asked; the message names the server's state, the value and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateReport:
    """One weight update: the version that is live now, its size, how long it took and how long decoding stood still."""

    version: int
    bytes: int
    seconds: float
    pause_seconds: float


class InferenceServer:
    """An engine of its own. States: new, starting, ready, updating, failed, stopped; only ready serves."""

    def __init__(self) -> None:
        self._state, self._since, self._reason = "new", time.time(), ""
        self._busy = BusySpans()
        self._engine: AsyncLLM | None = None
        self._tokenizer: Any = None
        self._settings = InferenceSettings()
        self._tti = TTISettings()
        self._version = 0
        self._names = itertools.count()
        self._tasks: set[asyncio.Task[Candidate]] = set()
        self._open = asyncio.Event()
        self._update_lock = asyncio.Lock()
        self._statistics: ReplyStatistics | None = None
        self._served = 0
        self._children: list[psutil.Process] = []

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
            engine, self._tokenizer = await asyncio.wait_for(starting, settings.start_timeout_s)
            self._engine = engine
            self._statistics = ReplyStatistics(self._fetch_statistics, settings.request_timeout_s)
            await asyncio.wait_for(engine.update_weight_version("0"), settings.start_timeout_s)
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
        return {
            "state": self._state,
            "since": self._since,
            "seconds_in_state": time.time() - self._since,
            "reason": self._reason,
            "version": self._version,
            "in_flight": len(self._tasks),
            "served": self._served,
            "pid": os.getpid(),
        }

    def _enter(self, state: str, reason: str = "") -> None:
        self._state, self._since, self._reason = state, time.time(), reason
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
        if self._statistics is not None:
            self._statistics.stop()
        engine, self._engine = self._engine, None
        if engine is not None:
            if engine.output_handler is not None:
                engine.output_handler.cancel()  # else it reports the engine's end as an error
            await asyncio.to_thread(engine.shutdown, GRACE_S)
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
        if self._state != "ready" or self._engine is None or self._statistics is None:
            raise InferenceError(self._unusable(f"request {request_id}"))
        prompt = np.asarray(prompt_ids, np.int64).tolist()
        limit = self._settings.prompt_tokens + self._settings.response_tokens
        if not prompt or len(prompt) + sampling.max_tokens > limit:
            raise RequestRefused(
                f"request {request_id}: {len(prompt)} prompt tokens + {sampling.max_tokens} reply tokens must be "
                f"between 1 and {limit} (inference.prompt_tokens + inference.response_tokens)"
            )
        name = f"{request_id}#{next(self._names)}"
        version = self._version
        final: RequestOutput | None = None
        try:
            # The salt keeps prefixes that older weights computed from being reused.
            async for output in self._engine.generate(
                {"prompt_token_ids": prompt, "cache_salt": f"v{version}"},
                sampling_params(name, seed, signal_range, sampling, tti),
                name,
            ):
                final = output
            if final is None or not final.outputs or final.outputs[0].finish_reason in (None, "abort", "error"):
                raise InferenceError(f"request {request_id}: the engine gave no complete reply ({final!r})")
            statistics = await self._statistics.of(name, final.outputs[0].token_ids)
        except BaseException as error:
            if self._engine is not None:
                self._statistics.drop(name)
            if type(error).__name__ == "EngineDeadError":
                await self._fail(f"the engine died: {error}")
                raise InferenceError(self._unusable(f"request {request_id}")) from error
            if isinstance(error, FetchError):
                raise InferenceError(str(error)) from error
            from vllm.exceptions import VLLMClientError

            if isinstance(error, (VLLMClientError, ValueError)):  # sampling or TTI settings out of range
                raise RequestRefused(f"request {request_id}: {error}") from error
            raise
        if statistics is None:
            raise InferenceError(f"request {request_id}: the engine kept no statistics of it")
        self._served += 1
        text = text_of(self._tokenizer, final.outputs[0].token_ids)
        return candidate_of(final, statistics, text, seed, version)

    async def _fetch_statistics(
        self, finished: list[tuple[str, list[int]]], dropped: list[str]
    ) -> list[dict[str, Any] | None]:
        if self._engine is None:
            raise InferenceError(self._unusable("statistics"))
        replies: list[list[dict[str, Any] | None]] = await self._engine.collective_rpc(
            "t2po_take", args=(finished, dropped)
        )
        return replies[0]

    def _unusable(self, what: str) -> str:
        hint = "call start first" if self._state == "new" else "start another server"
        return f"{what}: inference server is {self._state} ({self._reason or 'no reason given'}); {hint}"

    # ---- weights ----

    async def update_weights(self, version: int, weights: dict[str, torch.Tensor]) -> UpdateReport:
        """Makes `weights` live as `version`. Requests in flight stand still meanwhile and then go on with them.

        A failure before the engine is touched leaves the server ready; a later one leaves it failed.
        """
        async with self._update_lock:
            if self._state != "ready" or self._engine is None:
                raise InferenceError(self._unusable(f"weight update to version {version}"))
            if version <= self._version:
                raise InferenceError(f"weight update: version {version} must be above the live one, {self._version}")
            from actors.weight_transfer import write_weights

            began = time.monotonic()
            path, size = await asyncio.to_thread(write_weights, weights)
            self._open.clear()
            self._enter("updating")
            try:
                async with asyncio.timeout(self._settings.update_timeout_s):
                    pause = await self._swap_weights(self._engine, path, version)
            except BaseException as error:
                live, timeout = self._version, self._settings.update_timeout_s
                what = f"no answer in {timeout} s" if isinstance(error, TimeoutError) else repr(error)
                await self._fail(f"weight update from version {live} to {version} broke half-way: {what}")
                if isinstance(error, Exception):
                    raise InferenceError(f"inference server: {self._reason}; start another server") from error
                raise
            finally:
                path.unlink(missing_ok=True)
            self._version = version
            self._enter("ready")
            self._open.set()
            return UpdateReport(version=version, bytes=size, seconds=time.monotonic() - began, pause_seconds=pause)

    async def _swap_weights(self, engine: AsyncLLM, path: Path, version: int) -> float:
        """The engine's update protocol; returns how long decoding stood still."""
        from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

        began = time.monotonic()
        await engine.pause_generation(mode="keep", clear_cache=False)
        await engine.start_weight_update()
        await engine.update_weights(WeightTransferUpdateRequest(update_info={"path": str(path)}))
        await engine.finish_weight_update(weight_version=str(version))
        live = await engine.get_weight_version()
        if live != str(version):
            raise InferenceError(f"the engine reports version {live!r} after the update to {version}")
        await engine.resume_generation()
        return time.monotonic() - began
