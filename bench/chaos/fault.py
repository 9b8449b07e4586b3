"""What is done to a run, and when: one to three faults, drawn from a seed.

Owns: `Fault`, `Moment`, `schedule`. Pure: the same seed gives the same faults on every machine. Called by
`bench.chaos.conductor`. Must not know: how a fault is done.

Within every `len(KINDS)` seeds each kind comes first once, in an order of its own; what follows it is drawn freely.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Literal

STEPS = 4
"""Optimizer steps of a chaos run; a checkpoint every two."""
CHECKPOINT_EVERY = 2

PROCESSES = (
    "controller", "inference actor", "engine", "engine worker", "router", "env actor", "learner rank", "valkey",
    "raylet", "gcs", "ray agents", "reaper",
)  # fmt: skip
"""Every kind of process that a run has (`bench.chaos.processes` finds them)."""

KINDS: tuple[tuple[str, str], ...] = (
    *(("kill", name) for name in PROCESSES),
    *(("freeze", name) for name in PROCESSES),
    *(("freeze for ever", name) for name in PROCESSES),
    ("network", "slow"),
    ("network", "silent"),
    ("network", "closed"),
    ("network", "partition"),
    ("disk", "full"),
    ("queue memory", "full"),
    ("clock", "forward"),
    ("clock", "back"),
    ("environment", "raises"),
    ("environment", "loops"),
    ("environment", "returns 10 MB"),
    ("kill in a weight transfer", "engine"),
    ("kill before a checkpoint", "learner rank"),
)

When = Literal["starting", "step", "transfer", "unsaved", "play"]


@dataclass(frozen=True, slots=True)
class Moment:
    """When a fault comes. `starting`: `after_s` after the beginning of this life of the run, or when its target is
    there. `step`: `after_s` after step `step` was finished (0: after everything is up). `transfer`: while the weights
    after step `step` are on their way. `unsaved`: step `step` is in the metrics and in no checkpoint yet. `play`: an
    environment's own, in turn `turn` of group `group`; `after_s` is not used."""

    when: When
    step: int = 0
    after_s: float = 0.0
    group: int = 0
    turn: int = 0

    @property
    def is_short(self) -> bool:
        """Over in a fraction of a second."""
        return self.when in ("transfer", "unsaved")


@dataclass(frozen=True, slots=True)
class Fault:
    """`for_s`: how long it lasts; infinite: until the run sees to it, or ends of it. `times`: how often an environment
    misbehaves before it is well again (`rollout.max_attempts` is 3)."""

    kind: str
    target: str
    moment: Moment
    for_s: float = 0.0
    times: int = 1

    @property
    def name(self) -> str:
        return f"{self.kind}: {self.target}"


def schedule(seed: int) -> tuple[Fault, ...]:
    """The faults of the run with this seed, in the order in which they are done."""
    rng = random.Random(f"chaos {seed}")
    faults = [draw(_first(seed), rng)]
    for _ in range(rng.choices((0, 1, 2), weights=(4, 4, 2))[0]):
        while not _goes_with(kind := rng.choice(KINDS), faults):
            pass
        faults.append(draw(kind, rng))
    # What is set up before the run, or comes by itself while it plays, waits for no other fault.
    return tuple(sorted(faults, key=lambda fault: (fault.moment.when != "play", fault.moment.when != "starting")))


def draw(kind: tuple[str, str], rng: random.Random) -> Fault:
    """A fault of this kind at a random moment, for a random time."""
    name, target = kind
    moment = Moment("step", rng.randrange(STEPS), round(rng.uniform(0.0, 3.0), 2))
    if name in ("kill", "freeze", "freeze for ever") and rng.random() < 0.2:
        moment = Moment("starting", 0, round(rng.uniform(1.0, 20.0), 1))
    if name == "environment":
        moment = Moment("play", group=rng.randrange(2 * STEPS), turn=rng.randrange(2))
        return Fault(name, target, moment, times=rng.choice((1, 1, 2, 3)))
    if name == "kill in a weight transfer":
        return Fault(name, target, Moment("transfer", rng.randrange(1, STEPS)))
    if name == "kill before a checkpoint":
        return Fault(name, target, Moment("unsaved", CHECKPOINT_EVERY * rng.randint(1, STEPS // CHECKPOINT_EVERY)))
    if name == "kill":
        return Fault(name, target, moment)
    if name == "freeze for ever":
        return Fault(name, target, moment, math.inf)
    if name == "clock":
        return Fault(name, target, moment, 3600.0)
    return Fault(name, target, moment, round(rng.uniform(2.0, 20.0), 1))


def _first(seed: int) -> tuple[str, str]:
    block, place = divmod(seed, len(KINDS))
    order = list(KINDS)
    random.Random(f"chaos block {block}").shuffle(order)
    return order[place]


def _goes_with(kind: tuple[str, str], faults: list[Fault]) -> bool:
    """Not the same kind twice; and a queue behind a network of ours is not the run's own server to kill or fill."""
    kinds = {(fault.kind, fault.target) for fault in faults}
    names = {name for name, _ in kinds}
    own_server = {"valkey", "full"}
    if kind in kinds or (kind[0] in ("network", "environment", "clock") and kind[0] in names):
        return False
    if kind[0] == "network":
        return not any(target in own_server for _, target in kinds)
    return not ("network" in names and kind[1] in own_server)
