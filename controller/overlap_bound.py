"""How well generation and training overlap: a step's time against the shortest that its two sides allow.

Owns: which parts make a side, the bound, the gauge. Pure functions. Called by `controller.update` once a step and by
`bench.overlap`. Must not know: how the spans were noted (`controller.busy`), what is made of the numbers.

The bound is max(T_generate, T_train) + T_sync: with perfect overlap a step takes as long as the longer side, and the
weights' way is in everybody's way. T_generate: seconds of the step's period in which an engine or an environment was at
work, whatever step its groups are for; in a steady run each period holds one step's worth. T_train: the learner's.
T_sync: weights and checkpoint.

Generation goes on beside a checkpoint, and on one server beside another's update. Such seconds would count twice, so
each side is taken together with the sync as a union of time, max(|G or S|, |L or S|). Where the sync stands alone this
is the formula above; and no union of times within the step is longer than the step, so the gauge is at most 1.
"""

from __future__ import annotations

from controller.busy import Period

GENERATING = ("generation", "environments")
TRAINING = ("learner",)
SYNCING = ("weights", "checkpoint")


def overlap_of(period: Period) -> dict[str, float]:
    """Seconds `t_generate_s`, `t_train_s`, `t_sync_s`, `overlap_bound_s`, and `overlap_share`: the bound as a share of
    the period, 1 when nothing could be hidden behind something else any more."""
    bound = max(period.covered(*GENERATING, *SYNCING), period.covered(*TRAINING, *SYNCING))
    return {
        "t_generate_s": period.covered(*GENERATING),
        "t_train_s": period.covered(*TRAINING),
        "t_sync_s": period.covered(*SYNCING),
        "overlap_bound_s": bound,
        "overlap_share": bound / period.seconds,
    }
