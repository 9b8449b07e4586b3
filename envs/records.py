"""The records that cross a process: Task, Candidate, Turn, Trajectory, TrajectoryGroup, TrainingSample.

Owns: their fields and the checks on their lengths. Called by every room; `envs.codec` turns them
into msgpack. Must not know: Ray, torch, vLLM, Redis, or who produced or consumes a record.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]

NOT_MEASURED = math.nan
"""Φ or Γ without a measurement. Never zero: a zero Γ means that two turns are equally uncertain."""


class RecordError(ValueError):
    """A record whose parts do not fit together; the message names the record, the field and the lengths."""


def _same_length(record: str, **arrays: np.ndarray) -> None:
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise RecordError(f"{record}: arrays must have one length, got {lengths}")


class Record:
    """Pickles by its fields' values alone. What dataclasses do of themselves with slots asks for the list of fields, of
    each record again, which made pickling the controller's first bottleneck (docs/scale.md)."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Callable[..., Record], tuple[Any, ...]]:
        return _restored, (type(self), *_values_of(type(self))(self))  # type: ignore[arg-type]  # classes are hashable


@cache
def _values_of(record: type[Record]) -> Callable[[Record], tuple[Any, ...]]:
    """All fields in the order of the slots; a tuple, for every record has more than one field."""
    names: tuple[str, ...] = record.__slots__
    return attrgetter(*names)


def _restored(record: type[Record], *values: Any) -> Record:
    """Its lengths were checked where it was made."""
    restored = record.__new__(record)
    names: tuple[str, ...] = record.__slots__
    for name, value in zip(names, values, strict=True):
        object.__setattr__(restored, name, value)
    return restored


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(Record):
    """One start state and goal; the same on every machine.

    `id` is unique within the panel (official games: the official directory name), `index` the place in
    the panel, `kind` the task type that results are broken down by, `seed` the environment's own seed.
    """

    env: str
    panel: str
    index: int
    id: str
    kind: str
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalRange(Record):
    """Running minima and maxima of entropy (nats) and top-j confidence (nats) over a trajectory so far.

    An empty range is (inf, -inf). Carried from accepted turn to accepted turn (METHOD section 2).
    """

    entropy_min: float = math.inf
    entropy_max: float = -math.inf
    confidence_min: float = math.inf
    confidence_max: float = -math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds(Record):
    """Where a thought counts as saturated (ε, METHOD section 3) and a turn as stalled (η, section 4)."""

    epsilon: float
    eta: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate(Record):
    """One model reply to one state.

    Per-token arrays have shape [num_tokens]: `token_ids`; `logprobs`, the behaviour log-probability of
    each sampled token under the raw distribution at temperature 1 (0 where forced); `forced`;
    `entropy` (nats, of the raw distribution) and `uncertainty` (M in [0, 1]), both NaN where forced.
    `phi` is the geometric mean of M over sampled tokens; `gamma` is |Φ - Φ of the previous turn|;
    both NaN when not measured. `fired` is "" | "uncertainty" | "cap" and `fired_at` the index of the
    first forced token (-1: none). The thought is `num_think_tokens` tokens from index `think_at` (-1: none).
    `range_after` is the signal range after this candidate.
    `min_version`/`max_version` are the oldest and newest policy version that sampled a token of it.
    """

    token_ids: Int32
    logprobs: Float32
    forced: Bool
    entropy: Float32
    uncertainty: Float32
    text: str
    phi: float
    gamma: float
    kept: bool
    fired: str
    fired_at: int
    num_think_tokens: int
    finish_reason: str
    seed: int
    min_version: int
    max_version: int
    range_after: SignalRange
    think_at: int = -1

    def __post_init__(self) -> None:
        _same_length(
            "Candidate",
            token_ids=self.token_ids,
            logprobs=self.logprobs,
            forced=self.forced,
            entropy=self.entropy,
            uncertainty=self.uncertainty,
        )
        if self.fired not in ("", "uncertainty", "cap"):
            raise RecordError(f"Candidate: fired must be '', 'uncertainty' or 'cap', got {self.fired!r}")
        if self.min_version > self.max_version:
            raise RecordError(f"Candidate: min_version {self.min_version} > max_version {self.max_version}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn(Record):
    """The accepted Candidate, the rejected ones, and the environment's answer.

    `observation` is the raw observation the policy saw (GiGPO's anchor state), `action` what was sent
    to the environment, `format_valid` the strict reply format, `valid` format_valid and admissible,
    `next_observation` the environment's answer. Of an observation that was too long (`env.max_observation_chars`)
    `observation_cut` characters in the middle were left out.
    """

    prompt_ids: Int32
    accepted: Candidate
    rejected: tuple[Candidate, ...]
    observation: str
    action: str
    format_valid: bool
    valid: bool
    reward: float
    done: bool
    next_observation: str
    observation_cut: int = 0

    def __post_init__(self) -> None:
        if not math.isfinite(self.reward):
            raise RecordError(f"Turn: reward must be finite, got {self.reward}")
        if len(self.prompt_ids) == 0:
            raise RecordError("Turn: prompt_ids is empty")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory(Record):
    """The Turns of one run of one Task. `id` is deterministic: run, group, sibling, attempt. `score` in [0, 1] is the
    environment's own of what was reached (WebShop's); where it has none, 1 for a win."""

    id: str
    group_id: str
    task: Task
    sibling: int
    attempt: int
    turns: tuple[Turn, ...]
    won: bool
    duration_s: float
    score: float = 0.0

    def __post_init__(self) -> None:
        if not self.turns:
            raise RecordError(f"Trajectory {self.id}: no turns")

    @property
    def total_reward(self) -> float:
        return float(sum(turn.reward for turn in self.turns))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrajectoryGroup(Record):
    """G sibling Trajectories of one Task; what one entry of the replay queue holds.

    `index` counts the groups of a run (0, 1, 2, ...) in the order in which the panel was served.
    """

    id: str
    index: int
    task: Task
    trajectories: tuple[Trajectory, ...]

    def __post_init__(self) -> None:
        siblings = sorted(trajectory.sibling for trajectory in self.trajectories)
        if siblings != list(range(len(siblings))):
            raise RecordError(f"TrajectoryGroup {self.id}: siblings must be 0..G-1, got {siblings}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSample(Record):
    """What the learner sees of one Turn.

    `prompt_ids` [P]; `response_ids`, `loss_mask` (False where forced), `behaviour_logprobs`, `advantages`
    all [R]. `policy_version` is the oldest version that sampled a token of it; `trajectory` the id of its Trajectory,
    `turn` its number there. The learner adds, where it is asked to: `proximal_logprobs` [R], the policy at the start
    of the step, and `corrections` [R], importance weights.
    """

    prompt_ids: Int32
    response_ids: Int32
    loss_mask: Bool
    behaviour_logprobs: Float32
    advantages: Float32
    policy_version: int
    trajectory: str = ""
    turn: int = 0
    proximal_logprobs: Float32 | None = None
    corrections: Float32 | None = None

    def __post_init__(self) -> None:
        added = {"proximal_logprobs": self.proximal_logprobs, "corrections": self.corrections}
        _same_length(
            "TrainingSample",
            response_ids=self.response_ids,
            loss_mask=self.loss_mask,
            behaviour_logprobs=self.behaviour_logprobs,
            advantages=self.advantages,
            **{name: values for name, values in added.items() if values is not None},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRequest(Record):
    """What an environment actor asks of the router: one accepted turn from this state.

    `seed_key` = (task id, sibling, turn); with the run seed and the try it fixes the sampling seed.
    `previous_phi` is NaN at the first turn. `thresholds`: null, those of the configuration.
    """

    trajectory_id: str
    group_id: str
    turn: int
    prompt_ids: Int32
    signal_range: SignalRange
    previous_phi: float
    seed_key: tuple[str, int, int]
    thresholds: Thresholds | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnReply(Record):
    """The router's answer: the accepted Candidate and the ones thrown away before it."""

    accepted: Candidate
    rejected: tuple[Candidate, ...]
