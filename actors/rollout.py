"""One trajectory: reset, ask for a turn, step, until the environment ends it.

Owns: the turn loop, what goes into a Turn, and the replay of turns that an earlier attempt already
made. Called by `actors.env_pool`, one call a trajectory. Must not know: Ray, which server answers, how
a stalled turn is decided, or where the trajectory goes.

The environment is called in a thread with a deadline: an environment that hangs costs one attempt and
a named error, not the run. A reply that breaks the format, has no tags or is not text at all is a
counted invalid turn: its best-effort action is executed and the trajectory goes on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from actors.env_answer import Answer, BadAnswer, after_reset, after_step
from envs.chat import ChatTokenizer, fit_prompt
from envs.environment import Environment, find_environment
from envs.prompt import turn_message
from envs.records import NOT_MEASURED, SignalRange, Task, Thresholds, Trajectory, Turn, TurnReply, TurnRequest
from envs.settings import EnvSettings

RequestTurn = Callable[[TurnRequest], Awaitable[TurnReply]]


class EnvFailure(RuntimeError):
    """The environment raised, or answered with what is no answer; the message names task, turn and cause."""


class EnvTimeout(EnvFailure):
    """The environment did not answer in time. Its thread cannot be stopped: the process must go."""


class ReplayMismatch(RuntimeError):
    """A replayed action did not lead to the recorded observation: the environment is not deterministic."""


class TextGame(Protocol):
    """A `TextEnv` as this loop uses it (gymnasium's signatures)."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]: ...

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TrajectorySpec:
    """Which trajectory is asked for. `visit` counts how often the run has served this task before.

    `thresholds`: of TTI and TDS for all its turns; null, those of the configuration.
    """

    run_id: str
    group_id: str
    group_index: int
    task: Task
    sibling: int
    attempt: int
    sampling: Literal["train", "eval"]
    visit: int = 0
    thresholds: Thresholds | None = None

    @property
    def trajectory_id(self) -> str:
        return f"{self.group_id}/{self.sibling}/{self.attempt}"

    def seed_key(self, turn: int) -> tuple[str, int, int]:
        """What, with the run's seed and the try, fixes the sampling seed. Attempts share it: a retry repeats."""
        name = f"{self.task.panel}/{self.task.id}"
        return (f"{name}#{self.visit}" if self.visit else name, self.sibling, turn)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaySettings:
    """The knobs of one trajectory, gathered from the configuration's sections."""

    env: EnvSettings
    prompt_tokens: int
    env_step_timeout_s: float


class _Game:
    """The environment behind a deadline, and the little state that a turn needs of it."""

    def __init__(self, env: TextGame, spec: TrajectorySpec, settings: PlaySettings, pool: Executor | None) -> None:
        self.env = env
        self.spec = spec
        self.timeout_s = settings.env_step_timeout_s
        self.pool = pool
        self.longest = settings.env.max_observation_chars
        self.num_steps = 0
        self.environment: Environment = find_environment(settings.env.name)

    async def reset(self) -> Answer:
        options = {"task": self.spec.task}
        return await self._call(
            lambda: after_reset(self.env.reset(seed=self.spec.task.seed, options=options), self.longest)
        )

    async def step(self, action: str) -> Answer:
        answer = await self._call(lambda: after_step(self.env.step(action), self.longest))
        self.num_steps += 1
        return answer

    async def _call(self, function: Callable[[], Answer]) -> Answer:
        where = f"task {self.spec.task.id}, turn {self.num_steps}"
        waiting = asyncio.get_running_loop().run_in_executor(self.pool, function)
        try:
            return await asyncio.wait_for(waiting, self.timeout_s)
        except TimeoutError as error:
            raise EnvTimeout(f"{where}: the environment did not answer within {self.timeout_s:g} s") from error
        except BadAnswer as error:
            raise EnvFailure(f"{where}: the environment's {error}") from error
        except Exception as error:
            raise EnvFailure(f"{where}: the environment raised {type(error).__name__}: {error}") from error


async def run_trajectory(
    env: TextGame,
    spec: TrajectorySpec,
    tokenizer: ChatTokenizer,
    settings: PlaySettings,
    request_turn: RequestTurn,
    replay: tuple[Turn, ...] = (),
    *,
    on_turn: Callable[[Turn], None] = lambda turn: None,
    pool: Executor | None = None,
) -> Trajectory:
    """Plays `spec.task` to its end and returns the Trajectory.

    `replay`: accepted turns of an earlier attempt; their actions are executed again, the observations
    must be the recorded ones (ReplayMismatch), and play goes on from there. `on_turn` sees every turn,
    replayed ones too, as soon as the environment has answered.
    """
    started = time.monotonic()
    game = _Game(env, spec, settings, pool)
    answer = await game.reset()
    turns: list[Turn] = []
    while not (answer.terminated or answer.truncated) and len(turns) < settings.env.max_turns:
        if len(turns) < len(replay):
            turn, answer = await _repeat(game, replay[len(turns)], answer)
        else:
            turn, answer = await _play(game, tokenizer, settings, request_turn, turns, answer)
        turns.append(turn)
        on_turn(turn)
    won = bool(turns) and bool(answer.info.get("won", False))
    return Trajectory(
        id=spec.trajectory_id,
        group_id=spec.group_id,
        task=spec.task,
        sibling=spec.sibling,
        attempt=spec.attempt,
        turns=tuple(turns),
        won=won,
        duration_s=time.monotonic() - started,
        score=float(answer.info.get("task_score", won)),
    )


async def _play(
    game: _Game,
    tokenizer: ChatTokenizer,
    settings: PlaySettings,
    request_turn: RequestTurn,
    turns: list[Turn],
    before: Answer,
) -> tuple[Turn, Answer]:
    """One new turn, in sight of the environment's answer `before` -> the Turn, its answer to it."""
    past = [(turn.observation, turn.action) for turn in turns]

    def render(count: int) -> str:
        return turn_message(game.environment, settings.env.prompt, count, past, before.observation, before.info)

    prompt_ids = fit_prompt(tokenizer, render, min(settings.env.memory, len(past)), settings.prompt_tokens)
    last = turns[-1].accepted if turns else None
    reply = await request_turn(
        TurnRequest(
            trajectory_id=game.spec.trajectory_id,
            group_id=game.spec.group_id,
            turn=len(turns),
            prompt_ids=prompt_ids,
            signal_range=last.range_after if last else SignalRange(),
            previous_phi=last.phi if last else NOT_MEASURED,
            seed_key=game.spec.seed_key(len(turns)),
            thresholds=game.spec.thresholds,
        )
    )
    parsed = game.environment.parse(reply.accepted.text)
    action = parsed.action.encode("utf-8", "replace").decode("utf-8")
    answer = await game.step(action)
    turn = Turn(
        prompt_ids=prompt_ids,
        accepted=reply.accepted,
        rejected=reply.rejected,
        observation=before.observation,
        observation_cut=before.cut,
        action=action,
        format_valid=parsed.format_valid,
        valid=parsed.format_valid and game.environment.allows(action, before.info),
        reward=answer.reward,
        done=answer.terminated,
        next_observation=answer.observation,
    )
    return turn, answer


async def _repeat(game: _Game, turn: Turn, before: Answer) -> tuple[Turn, Answer]:
    """Executes the action of a turn that was accepted before; the environment must answer as it did."""
    where = f"task {game.spec.task.id}, turn {game.num_steps}"
    if before.observation != turn.observation:
        raise ReplayMismatch(
            f"{where}: replay saw {before.observation[:120]!r}, recorded was {turn.observation[:120]!r}"
        )
    answer = await game.step(turn.action)
    if (answer.observation, answer.reward, answer.terminated) != (turn.next_observation, turn.reward, turn.done):
        raise ReplayMismatch(
            f"{where}: {turn.action!r} led to {answer.observation[:120]!r} (reward {answer.reward}, "
            f"done {answer.terminated}), recorded was {turn.next_observation[:120]!r} (reward {turn.reward}, "
            f"done {turn.done})"
        )
    return turn, answer
