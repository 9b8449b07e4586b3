"""All detectors on one step: the findings in the order of `DETECTORS`.

Owns: which function is which detector, and which detectors see the same thing. Called by `controller.collapse.state`
and `controller.collapse.observatory`. Must not know: what a detector looks at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from controller.collapse import behaviour_detectors as behaviour
from controller.collapse import outcome_detectors as outcome
from controller.collapse import update_detectors as update
from controller.collapse.baseline import Series
from controller.collapse.finding import DETECTORS, Finding, Level
from controller.collapse.outcome_detectors import Outcome, losing, outcome_of
from controller.collapse.settings import CollapseSettings

Detector = Callable[[Series, CollapseSettings, Outcome], Finding]
"""`(series, settings, outcome of the series) -> finding of the present step`. Pure."""

FUNCTIONS: Mapping[str, Detector] = {
    "entropy_collapse": behaviour.entropy_collapse,
    "entropy_explosion": behaviour.entropy_explosion,
    "kl_spike": update.kl_spike,
    "gradient_spike": update.gradient_spike,
    "success_drop": outcome.success_drop,
    "length_explosion": behaviour.length_explosion,
    "repetition": behaviour.repetition,
    "format_loss": behaviour.format_loss,
    "dead_groups": outcome.dead_groups,
    "staleness": update.staleness,
    "off_policy": update.off_policy,
    "stalled": outcome.stalled,
}

UPDATE = ("kl_spike", "gradient_spike", "off_policy")
BEHAVIOUR = ("entropy_collapse", "entropy_explosion", "length_explosion", "repetition", "format_loss")
"""Detectors that see the same thing from different sides: the update, and what the policy does."""

INPUTS = (
    "approx_kl", "entropy", "format_invalid", "grad_norm", "groups_without_signal", "invalid", "mismatch_kl",
    "repeated_turns", "skipped_steps", "staleness", "step_s", "success", "trajectories", "trajectory_tokens",
    "truncated", "turns", "weight_ess",
)  # fmt: skip
"""The metrics that detectors look at."""


def detect(series: Series, settings: CollapseSettings) -> tuple[Finding, ...]:
    """What each detector says of the present step, the last of `series`."""
    reached = outcome_of(series, settings)
    found = {name: function(series, settings, reached) for name, function in FUNCTIONS.items()}
    found["several_signs"] = several_signs(found, losing(reached, settings))
    return tuple(found[name] for name in DETECTORS)


def several_signs(found: Mapping[str, Finding], lost: bool) -> Finding:
    """A collapse before any single sign is one: the update and the policy's behaviour are both strange while success is
    being lost. Each alone happens in healthy runs, for a few steps."""
    signs = [next((name for name in kind if found[name].level), "") for kind in (UPDATE, BEHAVIOUR)]
    if not lost or not all(signs):
        return Finding("several_signs")
    return Finding("several_signs", Level.COLLAPSED, f"{' and '.join(signs)} at once while success falls")
