"""One request in vLLM's words, and vLLM's answer as a `Candidate`. Pure functions.

Owns: `SamplingSpec`, the sampling parameters of a request, the Candidate of a finished one. Called by
`actors.engine_replies`. Must not know: engines, deadlines, other requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from actors.settings import TTISettings
from actors.think_markers import DEFAULT_QUEUE
from actors.tti_request import Request
from envs.records import NOT_MEASURED, Candidate, SignalRange

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSpec:
    """How one reply is sampled. `top_k` 0: all tokens; `tti`: whether its thought may be ended, `forced_queue`: with
    which words."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 64
    tti: bool = True
    forced_queue: str = DEFAULT_QUEUE


def sampling_params(
    name: str, seed: int, signal_range: SignalRange, sampling: SamplingSpec, tti: TTISettings
) -> SamplingParams:
    """A request in vLLM's words; `name` is what its statistics are asked for by."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_tokens=sampling.max_tokens,
        seed=seed,
        logprobs=0,
        flat_logprobs=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
        extra_args=Request(
            id=name,
            tti=tti.acts if sampling.tti else "off",
            signal=tti.signal,
            range=[
                signal_range.entropy_min,
                signal_range.entropy_max,
                signal_range.confidence_min,
                signal_range.confidence_max,
            ],
            alpha=tti.alpha,
            epsilon=tti.epsilon,
            window=tti.window,
            min_tokens=tti.min_tokens,
            think_cap=tti.think_cap,
            top_j=tti.top_j,
            queue=sampling.forced_queue,
        ).extra_args(),
    )


def candidate_of(
    output: RequestOutput,
    statistics: dict[str, Any],
    text: str,
    seed: int,
    submitted_version: int,
) -> Candidate:
    """The Candidate of a finished request. Statistics: see `SlotTable.statistics`."""
    reply = output.outputs[0]
    tokens = np.asarray(reply.token_ids, np.int32)
    count = len(tokens)
    forced = np.zeros(count, np.bool_)
    fired_at = statistics["fired_at"]
    if fired_at >= 0:
        forced[fired_at : fired_at + statistics["num_forced"]] = True
    history = np.frombuffer(statistics["history"], np.float32).reshape(-1, 3).copy()
    history[forced] = np.nan
    sampled: Any = reply.logprobs
    logprobs = np.asarray(sampled.logprobs, np.float32)[np.asarray(sampled.start_indices, np.intp)]
    versions = [int(span.version) for span in reply.weight_versions or ()]
    e_min, e_max, c_min, c_max = statistics["range"]
    return Candidate(
        token_ids=tokens,
        logprobs=np.where(forced, np.float32(0), logprobs),
        forced=forced,
        entropy=np.ascontiguousarray(history[:, 0]),
        uncertainty=np.ascontiguousarray(history[:, 2]),
        text=text,
        phi=statistics["phi"],
        gamma=NOT_MEASURED,
        kept=True,
        fired=statistics["fired"],
        fired_at=fired_at,
        num_think_tokens=statistics["num_think_tokens"],
        think_at=statistics["think_at"],
        finish_reason=reply.finish_reason or "",
        seed=seed,
        # The prompt's keys and values may have been computed under the version at submission.
        min_version=min([submitted_version, *versions]),
        max_version=max(versions, default=submitted_version),
        range_after=SignalRange(entropy_min=e_min, entropy_max=e_max, confidence_min=c_min, confidence_max=c_max),
    )


def text_of(tokenizer: Any, token_ids: Sequence[int]) -> str:
    """The reply as text, markers included, without the end token; bytes that are no UTF-8 are replaced."""
    tokens = list(token_ids)
    if tokens and tokens[-1] == tokenizer.eos_token_id:
        tokens.pop()
    return str(tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False))
