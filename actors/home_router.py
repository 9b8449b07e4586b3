"""Which router a group's turns pass through.

Owns: the choice, which everybody who asks a router makes alike. Called by `actors.env_actor` and, for what a router
remembers, by the controller. Must not know: what a router is, how many turns it answers.
"""

from __future__ import annotations

from envs.seeds import derive_seed


def home_router(group_id: str, num_routers: int) -> int:
    """The index in [0, num_routers) of the group's router: the same in every process and in every life of a run.

    Siblings share a router, because it sends them to one server, where their prompts are cached.
    """
    return derive_seed("router", group_id) % num_routers
