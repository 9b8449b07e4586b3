"""A request's way through a running engine: admission, the reply, its statistics, the Candidate.

Owns: `EngineReplies`. Called by `actors.inference`, which decides when requests may come and what becomes of one whose
engine dies. Must not know: states, weights beyond the number of their version, Ray.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from actors.candidate import SamplingSpec, candidate_of, sampling_params, text_of
from actors.engine import InferenceError
from actors.reply_statistics import FetchError, ReplyStatistics
from actors.settings import InferenceSettings, TTISettings
from actors.tti_request import RequestRefused
from envs.records import Candidate, SignalRange

if TYPE_CHECKING:
    from vllm import RequestOutput
    from vllm.v1.engine.async_llm import AsyncLLM


class EngineReplies:
    """The replies of one engine, any number at a time."""

    def __init__(self, engine: AsyncLLM, tokenizer: Any, settings: InferenceSettings) -> None:
        self._engine: AsyncLLM | None = engine
        self._tokenizer = tokenizer
        self._limit = settings.prompt_tokens + settings.response_tokens
        self._names = itertools.count()
        self._statistics = ReplyStatistics(self._fetch, settings.request_timeout_s)
        self.served = 0

    def stop(self) -> None:
        """The engine is going: nothing is asked of it any more."""
        self._engine = None  # so that it can be freed
        self._statistics.stop()

    async def reply(
        self,
        request_id: str,
        prompt_ids: ArrayLike,
        seed: int,
        signal_range: SignalRange,
        sampling: SamplingSpec,
        tti: TTISettings,
        version: int,
    ) -> Candidate:
        """One reply under weights `version` or later. RequestRefused: asking again is of no use.

        vLLM's EngineDeadError passes: it ends more than this request.
        """
        # Never in a variable here: the frame of a request that failed would keep a dead engine from being freed.
        if self._engine is None:
            raise InferenceError(f"request {request_id}: the engine was ended; start another server")
        prompt = self._admitted(request_id, prompt_ids, sampling)
        name = f"{request_id}#{next(self._names)}"
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
            if isinstance(error, FetchError):
                raise InferenceError(str(error)) from error
            from vllm.exceptions import VLLMClientError

            if isinstance(error, (VLLMClientError, ValueError)):  # sampling or TTI settings out of range
                raise RequestRefused(f"request {request_id}: {error}") from error
            raise
        if statistics is None:
            raise InferenceError(f"request {request_id}: the engine kept no statistics of it")
        self.served += 1
        text = text_of(self._tokenizer, final.outputs[0].token_ids)
        return candidate_of(final, statistics, text, seed, version)

    def _admitted(self, request_id: str, prompt_ids: ArrayLike, sampling: SamplingSpec) -> list[int]:
        """The prompt's tokens, if the engine has room for them and the reply."""
        prompt: list[int] = np.asarray(prompt_ids, np.int64).tolist()
        if not prompt or len(prompt) + sampling.max_tokens > self._limit:
            raise RequestRefused(
                f"request {request_id}: {len(prompt)} prompt tokens + {sampling.max_tokens} reply tokens must be "
                f"between 1 and {self._limit} (inference.prompt_tokens + inference.response_tokens)"
            )
        return prompt

    async def _fetch(self, finished: list[tuple[str, list[int]]], dropped: list[str]) -> list[dict[str, Any] | None]:
        if self._engine is None:
            raise InferenceError("statistics: the engine was ended; start another server")
        replies: list[list[dict[str, Any] | None]] = await self._engine.collective_rpc(
            "t2po_take", args=(finished, dropped)
        )
        return replies[0]
