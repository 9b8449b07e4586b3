"""How much each token weighs in the loss of a minibatch.

Owns: `token_weights`. Called by the learner once a minibatch, before it is packed. Must not know: torch, losses, ranks.

The weights come from the loss masks of the whole minibatch, so the loss is Σ_i w_i l_i over its tokens, and the sum is
the same however they are packed into micro-batches or shared between ranks: each part adds its own w_i l_i, gradients
are summed over parts and ranks, and nobody divides again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from envs.records import Bool

Float64 = NDArray[np.float64]


def token_weights(
    masks: Sequence[Bool],
    aggregation: str,
    *,
    max_response_tokens: int = 0,
    trajectories: Sequence[str] = (),
) -> list[Float64]:
    """A weight for each response token: one array [R_i] a sequence (a turn), 0 where `masks[i]` [R_i] is False.

    n_i: trained tokens of turn i; S: turns with at least one of them. `aggregation`:
    - "token_mean": 1/Σ_j n_j, each token weighs the same (DAPO, arXiv 2503.14476, token-level loss);
    - "sequence_mean": 1/(S n_i), each turn weighs the same (GRPO, arXiv 2402.03300; GSPO);
    - "constant": 1/(S max_response_tokens): the weight of a token depends on no length, so long replies are neither
      spared nor favoured (Dr. GRPO, arXiv 2503.20783). `max_response_tokens` is the budget of a reply, at least 1;
    - "trajectory_mean": 1/(K n_k), n_k the trained tokens of the token's trajectory in this minibatch, K the
      trajectories with at least one. `trajectories`: the trajectory id of each turn.
    Turns without a trained token count nowhere. ValueError for what is missing.
    """
    counts = np.array([int(np.count_nonzero(mask)) for mask in masks], dtype=np.int64)
    num_turns = int(np.count_nonzero(counts))
    if aggregation == "token_mean":
        shares = np.full(len(masks), _inverse(int(counts.sum())))
    elif aggregation == "sequence_mean":
        shares = np.array([_inverse(num_turns * count) for count in counts.tolist()])
    elif aggregation == "constant":
        if max_response_tokens < 1:
            raise ValueError(
                f"token_weights: constant needs max_response_tokens of 1 or more, got {max_response_tokens}"
            )
        shares = np.full(len(masks), _inverse(num_turns * max_response_tokens))
    elif aggregation == "trajectory_mean":
        shares = _trajectory_shares(counts.tolist(), trajectories)
    else:
        raise ValueError(
            f"token_weights: {aggregation!r} is unknown; use token_mean, sequence_mean, constant or trajectory_mean"
        )
    return [np.where(mask, share, 0.0) for mask, share in zip(masks, shares.tolist(), strict=True)]


def _trajectory_shares(counts: list[int], trajectories: Sequence[str]) -> Float64:
    if len(trajectories) != len(counts):
        raise ValueError(
            f"token_weights: {len(trajectories)} trajectory ids for {len(counts)} turns; one each is needed"
        )
    totals: dict[str, int] = {}
    for trajectory, count in zip(trajectories, counts, strict=True):
        totals[trajectory] = totals.get(trajectory, 0) + count
    num_trajectories = sum(total > 0 for total in totals.values())
    return np.array([_inverse(num_trajectories * totals[trajectory]) for trajectory in trajectories])


def _inverse(count: int) -> float:
    """1/count, 0 for none: no weight is ever asked of it."""
    return 1.0 / count if count else 0.0
