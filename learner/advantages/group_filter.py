"""Which groups are trained on.

Owns: `has_mixed_success`, `has_different_returns`, `is_kept`. Called by `learner.samples`. Must not know: advantages,
tokens, who refills the places of dropped groups.
"""

from __future__ import annotations

from learner.advantages.group_turns import GroupTurns
from learner.settings import AdvantageSettings


def has_mixed_success(group: GroupTurns) -> bool:
    """Whether some trajectory won and some did not: 0 < successes < G. A trajectory alone never has it.

    Source: DAPO (arXiv 2503.14476), dynamic sampling; SAMPO (METHOD section 5). With a reward of 1 for a win, else 0,
    groups without it have advantages of exactly 0 and dropping them only mends the normalisation of the loss. It asks
    for successes, not for advantages: with graded rewards (a WebShop score), with penalties or with step rewards, a
    group in which nobody won may still tell better from worse, and is dropped all the same. `has_different_returns`
    is the rule for those.
    """
    return 0 < sum(bool(won) for won in group.won) < len(group.won)


def has_different_returns(group: GroupTurns) -> bool:
    """Whether Σ_k r_k differs between trajectories, exactly (no tolerance): the same rule stated for any reward.

    Penalties of invalid turns do not count: a group in which all failed and some replied badly has no signal.
    Source: the public DAPO recipe, which filters by the spread of a group's metric.
    """
    return len(set(group.totals)) > 1


def is_kept(group: GroupTurns, settings: AdvantageSettings) -> bool:
    """By `settings.keep_groups`."""
    if settings.keep_groups == "mixed_success":
        return has_mixed_success(group)
    return settings.keep_groups == "all" or has_different_returns(group)
