"""Where actors may live in a cluster that has raylets by role, and whether all of them find a place.

Owns: the names of the custom resources, what each kind of actor asks Ray for, the check before anything is started.
Called by `controller.actor_places`, `controller.preflight` and `controller.local_cluster`. Must not know: who asks,
how actors are made. Pure functions.

Ray lets an actor that fits nowhere wait for ever; so what does not fit is said beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Resources = Mapping[str, float]

RESOURCES = {"head": "t2po_head", "env": "t2po_env", "inference": "t2po_inference", "learner": "t2po_learner"}
"""The custom resource of a raylet's role. One actor takes one."""

GPU = "GPU"
NODE = "the cluster"


class PlacementError(RuntimeError):
    """Actors that fit nowhere; names the part, how many places there are, and the remedy. Nothing was started."""


def asked_by(role: str, nodes: Sequence[Resources], num_gpus: float = 0) -> dict[str, float]:
    """What one actor of `role` asks for: a slot of its role where raylets have them, and its GPUs. `nodes`: the total
    resources of every live raylet. Without raylets by role, and without GPUs, an actor asks for nothing."""
    asked = {}
    if any(node.get(RESOURCES[role], 0) > 0 for node in nodes):
        asked[RESOURCES[role]] = 1.0
    if num_gpus:
        asked[GPU] = float(num_gpus)
    return asked


def gpus_of_role(role: str, nodes: Sequence[Resources]) -> float:
    """GPUs on the raylets that an actor of the role may live on."""
    asked = asked_by(role, nodes)
    return sum(node.get(GPU, 0.0) for node in nodes if all(node.get(name, 0) > 0 for name in asked))


def num_places(asked: Resources, free: Sequence[Resources]) -> int | None:
    """How many actors that ask for `asked` fit on nodes with `free`; None: any number."""
    wanted = {name: value for name, value in asked.items() if value > 0}
    if not wanted:
        return None
    return sum(min(int(node.get(name, 0.0) / value + 1e-9) for name, value in wanted.items()) for node in free)


def emptiest(asked: Resources, nodes: Mapping[str, Resources], sent: Mapping[str, int]) -> str:
    """Of the nodes (id -> total resources) that have room for what one actor asks, the one that the fewest actors of
    this run were `sent` to; the empty string when none has."""
    fitting = [
        (sent.get(node, 0), node)
        for node, total in nodes.items()
        if (places := num_places(asked, [total])) is None or places > sent.get(node, 0)
    ]
    return min(fitting, default=(0, ""))[1]


def check_places(needs: Sequence[tuple[str, int, Resources]], free: Sequence[Resources], where: str = NODE) -> None:
    """`needs`: (role, how many more, what one asks for). PlacementError names all roles that do not fit, not the first.

    Roles share nothing but GPUs; these are given out in the order of `needs`.
    """
    left = [dict(node) for node in free]
    problems = []
    for role, count, asked in needs:
        places = num_places(asked, left)
        if places is None:
            continue
        if places < count:
            words = " and ".join(f"{value:g} {name}" for name, value in asked.items())
            problems.append(
                f"{count} {role} actor{'s' * (count != 1)}: {where} has {places} free place{'s' * (places != 1)} for "
                f"them (each takes {words}); {remedy(role)}"
            )
        _take(asked, min(count, places), left)
    if problems:
        raise PlacementError("\n".join(problems))


def remedy(role: str) -> str:
    """What a person can do about too few places."""
    knob = {
        "env": "rollout.num_env_actors",
        "inference": "inference.num_servers",
        "learner": "learner.num_ranks",
        "head": "rollout.num_routers",
    }[role]
    if role == "head":
        return f"lower {knob}, end another run on it, or start the head with more t2po_head"
    option = {"env": "envs", "inference": "inference", "learner": "learners"}[role]
    return f"lower {knob}, or add raylets: t2po cluster scale {option}=N"


def _take(asked: Resources, count: int, left: list[dict[str, float]]) -> None:
    for node in left:
        here = min(count, num_places(asked, [node]) or 0)
        for name, value in asked.items():
            node[name] = node.get(name, 0.0) - here * value
        count -= here
