"""Many environments in one process: trajectories run side by side, each at its own pace.

Owns: idle environments, the threads they step in, the tokenizer, and which turns the router has not
seen yet. Called by `actors.env_actor` (and directly by tests). Must not know: Ray, the router's
decision, or what becomes of a Trajectory. It imports neither torch nor vLLM: 128 environments have to
fit into 500 MB.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from actors.busy_spans import BusySpans
from actors.rollout import EnvFailure, PlaySettings, ReplayMismatch, TextGame, TrajectorySpec, run_trajectory
from envs.chat import ChatTokenizer
from envs.environment import find_environment
from envs.records import Trajectory, Turn, TurnReply, TurnRequest

AskRouter = Callable[[TurnRequest, Literal["train", "eval"], tuple[Turn, ...]], Awaitable[TurnReply]]
"""One accepted turn from this state; the turns are those that the router has not recorded yet."""

NUM_THREADS = 8
"""Threads that environments step in. A step takes microseconds; more threads only queue for the interpreter."""


class TokenizerError(ValueError):
    """A tokenizer that cannot be loaded or cannot make prompts; the message names the folder and what is missing."""


def load_tokenizer(folder: str) -> ChatTokenizer:
    """The tokenizer of a Hugging Face folder. `AutoTokenizer` would import torch (340 MB); this class does not."""
    from transformers import PreTrainedTokenizerFast

    if not (Path(folder) / "tokenizer.json").is_file():
        raise TokenizerError(f"{folder}: no tokenizer.json: not a Hugging Face model with a fast tokenizer")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    if tokenizer.eos_token_id is None:
        raise TokenizerError(f"{folder}: the tokenizer names no eos_token, so a reply would never end")
    if not tokenizer.chat_template:
        raise TokenizerError(f"{folder}: the tokenizer has no chat template, so a message cannot become a prompt")
    return tokenizer


class _TimedGame:
    """A game that notes when it is at work."""

    def __init__(self, game: TextGame, busy: BusySpans) -> None:
        self._game = game
        self._busy = busy

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        with self._busy.span():
            return self._game.reset(seed=seed, options=options)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        with self._busy.span():
            return self._game.step(action)


class EnvPool:
    """Runs trajectories on environments of one kind. `busy`: when one of them was made, reset or stepped."""

    def __init__(
        self, settings: PlaySettings, tokenizer: ChatTokenizer, make_env: Callable[[], TextGame], ask: AskRouter
    ) -> None:
        self._settings = settings
        self._tokenizer = tokenizer
        self._make_env = make_env
        self._ask = ask
        self.busy = BusySpans()
        self._idle: list[TextGame] = []
        self._threads = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="environment")
        self._live = 0
        self._steps = 0
        self._failures = 0

    async def run(self, spec: TrajectorySpec, replay: tuple[Turn, ...] = ()) -> Trajectory:
        """One trajectory. Raises EnvFailure, EnvTimeout or ReplayMismatch; the environment is then thrown away."""
        unseen: list[Turn] = []

        def remember(turn: Turn) -> None:
            self._steps += 1
            unseen.append(turn)

        async def request_turn(request: TurnRequest) -> TurnReply:
            turns = tuple(unseen)
            reply = await self._ask(request, spec.sampling, turns)
            del unseen[: len(turns)]
            return reply

        env = await self._take()
        self._live += 1
        try:
            trajectory = await run_trajectory(
                env, spec, self._tokenizer, self._settings, request_turn, replay, on_turn=remember, pool=self._threads
            )
        except (EnvFailure, ReplayMismatch):
            self._failures += 1
            raise
        finally:
            self._live -= 1
        self._idle.append(env)
        return trajectory

    async def _take(self) -> TextGame:
        """An idle environment, or a new one (made in a thread: it may read files), behind the step deadline."""
        if self._idle:
            return self._idle.pop()
        making = asyncio.get_running_loop().run_in_executor(self._threads, self._make)
        try:
            return await asyncio.wait_for(making, self._settings.env_step_timeout_s)
        except TimeoutError as error:
            raise EnvFailure(f"no environment after {self._settings.env_step_timeout_s:g} s") from error
        except Exception as error:
            raise EnvFailure(f"the environment could not be made: {type(error).__name__}: {error}") from error

    def _make(self) -> TextGame:
        with self.busy.span():
            return _TimedGame(self._make_env(), self.busy)

    def status(self) -> dict[str, Any]:
        """Counts for the live view: trajectories under way, idle environments, steps and failures so far."""
        return {
            "live": self._live,
            "idle_envs": len(self._idle),
            "steps": self._steps,
            "failures": self._failures,
            "memory_mb": resident_memory_mb(),
            "notes": find_environment(self._settings.env.name).notes(self._settings.env),
            "time": time.time(),
        }


def resident_memory_mb() -> float:
    """Resident memory of this process, MB; NaN where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return float("nan")
    return pages * 4096 / 1e6
