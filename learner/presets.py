"""Named algorithms: which advantage, loss and filter each one is, with its published settings.

Owns: `ALGORITHMS`, `preset`. Called by `controller.config` for the knob `algorithm`. Must not know: recipes and
overrides, learning rates, sizes.

A preset says what makes the algorithm, and nothing about how large or fast: a recipe lies over it, an override over
that. Whether there is a KL to the reference, and GiGPO's F, belong to the environment (METHOD section 6) and are left
to recipes where an algorithm's own source does not fix them. Correction for stale samples is left alone everywhere.
"""

from __future__ import annotations

import copy
import difflib
from typing import Any

from envs.data_folder import DataError

Tree = dict[str, Any]

_PUBLISHED_CLIP: Tree = {"clip_low": 0.2, "clip_high": 0.2, "dual_clip": 3.0}
"""METHOD section 6, which is what T²PO, GiGPO and their baselines were run with; PPO (arXiv 1707.06347) has the 0.2."""


class UnknownAlgorithm(DataError):
    """A name that is no algorithm's; the message says what names there are."""


ALGORITHMS: dict[str, Tree] = {
    # REINFORCE (Williams 1992): the return of the trajectory, no baseline, no clip. The gradient is a sum over tokens,
    # so they are divided by a constant.
    "reinforce": {
        "advantage": {"estimator": "reinforce", "keep_groups": "all"},
        "loss": {"policy": "unclipped", "aggregation": "constant"},
    },
    # RLOO (arXiv 2402.14740): REINFORCE with the mean of the others as baseline, KL in the reward by its k1 estimate
    # with 0.03; the weight is the recipe's.
    "rloo": {
        "advantage": {"estimator": "rloo", "keep_groups": "all"},
        "loss": {"policy": "unclipped", "aggregation": "constant", "kl_in": "reward", "kl_estimator": "k1"},
    },
    # GRPO (arXiv 2402.03300) as T²PO and GiGPO run it, with the token mean (METHOD section 6); the paper's own
    # aggregation is loss.aggregation = "sequence_mean".
    "grpo": {
        "advantage": {"estimator": "grpo", "normalise": "mean_std_norm", "keep_groups": "all"},
        "loss": {"policy": "token_ratio", **_PUBLISHED_CLIP, "aggregation": "token_mean"},
    },
    # Dr. GRPO (arXiv 2503.20783): no std, no length in the loss, no KL.
    "dr_grpo": {
        "advantage": {"estimator": "dr_grpo", "keep_groups": "all"},
        "loss": {
            "policy": "token_ratio", "clip_low": 0.2, "clip_high": 0.2, "dual_clip": 0.0, "aggregation": "constant",
            "kl_coef": 0.0,
        },
    },
    # DAPO (arXiv 2503.14476, section 4.1): clip-higher 0.2/0.28, dynamic sampling, token mean, no KL. It names no bound
    # for the sampling; ours is four times the step, which is then smaller. Its penalty of overlong replies has no
    # place here: a reply that is cut off is invalid already.
    "dapo": {
        "advantage": {"estimator": "grpo", "normalise": "mean_std_norm", "keep_groups": "mixed_success", "refill": 4},
        "loss": {
            "policy": "token_ratio", "clip_low": 0.2, "clip_high": 0.28, "dual_clip": 0.0,
            "aggregation": "token_mean", "kl_coef": 0.0,
        },
    },
    # GSPO (arXiv 2507.18071, section 5.1): ratio of the sequence, clips 3e-4 and 4e-4, mean over sequences; no KL.
    "gspo": {
        "advantage": {"estimator": "grpo", "normalise": "mean_std_norm", "keep_groups": "all"},
        "loss": {
            "policy": "sequence_ratio", "clip_low": 3e-4, "clip_high": 4e-4, "dual_clip": 0.0,
            "aggregation": "sequence_mean", "kl_coef": 0.0,
        },
    },
    # GiGPO (arXiv 2505.10978; METHOD sections 5 and 6): step part with weight 1 and discount 0.95.
    "gigpo": {
        "advantage": {"estimator": "gigpo", "gamma": 0.95, "step_weight": 1.0, "keep_groups": "all"},
        "loss": {"policy": "token_ratio", **_PUBLISHED_CLIP, "aggregation": "token_mean"},
    },
    # SAMPO (ARLArena, arXiv 2602.21534; METHOD section 5): GiGPO's advantages, GSPO's ratio of a turn with clips 3e-3
    # and 4e-3 (the public GSPO script of its authors has 3e-4 and 4e-4), token mean, no groups of wins or losses alone.
    "sampo": {
        "advantage": {"estimator": "gigpo", "gamma": 0.95, "step_weight": 1.0, "keep_groups": "mixed_success"},
        "loss": {
            "policy": "sequence_ratio", "clip_low": 3e-3, "clip_high": 4e-3, "dual_clip": 0.0,
            "aggregation": "token_mean",
        },
    },
    # PPO (arXiv 1707.06347) over turns: GAE with the gamma 0.99 and lambda 0.9 that Turn-PPO (arXiv 2512.17008) found
    # best, advantages whitened; the critic's rate and clip are verl's.
    "ppo": {
        "advantage": {"estimator": "gae", "gamma": 0.99, "gae_lambda": 0.9, "whiten": True, "keep_groups": "all"},
        "loss": {"policy": "token_ratio", **_PUBLISHED_CLIP, "aggregation": "token_mean"},
        "critic": {"lr": 1e-5, "value_clip": 0.5},
    },
}  # fmt: skip


def preset(name: str) -> Tree:
    """A copy of the sections of this algorithm, `{"advantage": {...}, "loss": {...}}`. UnknownAlgorithm."""
    if name not in ALGORITHMS:
        close = difflib.get_close_matches(name, ALGORITHMS, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UnknownAlgorithm(f"unknown algorithm; {hint}use one of {', '.join(sorted(ALGORITHMS))}")
    return copy.deepcopy(ALGORITHMS[name])
