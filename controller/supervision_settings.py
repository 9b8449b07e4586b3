"""How parts are watched, and how often one that dies is started again.

Owns: the section `supervision`. Read by `controller.supervision`, `controller.replacements`, `controller.train` and the
embedded server of the replay queue. Must not know: what the parts are.
"""

from __future__ import annotations

from pydantic import Field

from envs.settings import Section


class SupervisionSettings(Section):
    """When a part counts as dead, and how often it is started again (docs/runs.md)."""

    ping_every_s: float = Field(2.0, gt=0, description="Seconds between two questions to a part how it is.")
    ping_timeout_s: float = Field(
        60.0, gt=0, description="Seconds without an answer after which a part is taken for frozen, killed and replaced."
    )
    max_restarts: int = Field(
        5,
        ge=0,
        description="Restarts of one part within `restart_window_s`; one more death ends the run with its cause.",
    )
    restart_window_s: float = Field(3600.0, gt=0, description="Seconds over which restarts are counted.")
    restart_pause_s: float = Field(
        1.0,
        ge=0,
        description="Pause before the second restart within the window, seconds; it doubles with each further.",
    )
    longest_pause_s: float = Field(60.0, ge=0, description="Longest pause before a restart, seconds.")
