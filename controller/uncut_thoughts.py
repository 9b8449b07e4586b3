"""How long thoughts would have been that TTI ended: each is sampled again, to its end, with the seed that it had.

Owns: `uncut_lengths`. Called by `controller.calibrate`. Must not know: what is done with the numbers.

A reply follows from its prompt, its seed and the signal range alone, so the repeated thought is the one that was cut,
token for token, and then goes on: this is the true number, where `controller.tokens_saved` estimates.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from actors.candidate import SamplingSpec
from controller.deadline import bounded
from envs.records import Candidate, SignalRange, Trajectory


async def uncut_lengths(
    server: Any, trajectories: Sequence[Trajectory], sampling: SamplingSpec, timeout_s: float
) -> list[tuple[int, int]]:
    """(thinking tokens sampled, thinking tokens it would have had) of each accepted turn that uncertainty ended.

    `server`: handle of an inference actor with the weights that sampled the turns. A turn whose repetition differs
    before the cut (the engine rounded a near-tie the other way) is left out.
    """

    async def one(name: str, prompt: Any, cut: Candidate, before: SignalRange) -> tuple[int, int] | None:
        call = server.generate.remote(name, prompt, cut.seed, before, sampling, 0.0)
        whole: Candidate = await bounded(call, timeout_s, f"{name}: the thought to its end")
        same = cut.token_ids[: cut.fired_at].tolist() == whole.token_ids[: cut.fired_at].tolist()
        return (cut.num_think_tokens, whole.num_think_tokens) if same else None

    calls = []
    for trajectory in trajectories:
        before = SignalRange()
        for number, turn in enumerate(trajectory.turns):
            if turn.accepted.fired == "uncertainty":
                calls.append(one(f"uncut/{trajectory.id}/{number}", turn.prompt_ids, turn.accepted, before))
            before = turn.accepted.range_after
    return [pair for pair in await asyncio.gather(*calls) if pair is not None]
