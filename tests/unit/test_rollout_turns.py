"""One trajectory: what is asked, what is recorded, replay, and everything that can go wrong in an environment."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.env_pool import EnvPool, TokenizerError, load_tokenizer
from actors.rollout import EnvFailure, EnvTimeout, PlaySettings, ReplayMismatch, TrajectorySpec, run_trajectory
from controller.rollout_metrics import rollout_metrics
from envs.codec import decode_group, encode_group, encode_turns
from envs.records import Trajectory, TrajectoryGroup, TurnReply, TurnRequest
from envs.settings import EnvSettings
from tests.fakes import RIGHT, Corridor, ScriptedRouter, WordTokenizer, make_candidate, make_task

SPEC = TrajectorySpec(
    run_id="run", group_id="run-g0", group_index=0, task=make_task(), sibling=1, attempt=0, sampling="train"
)
LEFT = "<think>go</think><action>left</action>"


def settings(**changes: Any) -> PlaySettings:
    env = EnvSettings(max_turns=6, memory=2, prompt="compact")
    values: dict[str, Any] = {"env": env, "prompt_tokens": 1000, "env_step_timeout_s": 5.0}
    return PlaySettings(**{**values, **changes})


def play(
    router: Any, env: Any = None, tokenizer: Any = None, limits: PlaySettings | None = None, **options: Any
) -> Any:
    env, tokenizer, limits = env or Corridor(), tokenizer or WordTokenizer(), limits or settings()
    return asyncio.run(run_trajectory(env, SPEC, tokenizer, limits, router, **options))


def test_rollout_plays_to_the_goal_and_records_every_turn() -> None:
    router = ScriptedRouter(RIGHT, LEFT, RIGHT, RIGHT, RIGHT, phis=(0.2, 0.3, 0.4, 0.5, 0.6))
    trajectory = play(router)
    assert trajectory.id == "run-g0/1/0"
    assert trajectory.won
    assert [turn.action for turn in trajectory.turns] == ["right", "left", "right", "right", "right"]
    assert [turn.reward for turn in trajectory.turns] == [0, 0, 0, 0, 10]
    assert [turn.done for turn in trajectory.turns] == [False] * 4 + [True]
    assert [turn.observation for turn in trajectory.turns][1:] == [
        turn.next_observation for turn in trajectory.turns[:-1]
    ]
    assert all(turn.valid and turn.format_valid for turn in trajectory.turns)


def test_rollout_carries_signal_range_phi_and_seed_key() -> None:
    router = ScriptedRouter(RIGHT, phis=(0.2, 0.3, 0.4))
    play(router)
    first, second, third = router.requests
    assert math.isnan(first.previous_phi)
    assert first.signal_range.entropy_min == math.inf
    assert (second.previous_phi, third.previous_phi) == (0.2, 0.3)
    assert (second.signal_range.entropy_max, third.signal_range.entropy_max) == (1.0, 2.0)
    assert [request.seed_key for request in router.requests] == [("train/corridor-0", 1, turn) for turn in range(3)]


def test_rollout_seed_key_is_the_same_for_attempts_and_differs_for_visits() -> None:
    assert replace(SPEC, attempt=2).seed_key(4) == SPEC.seed_key(4)
    assert replace(SPEC, visit=1).seed_key(4) != SPEC.seed_key(4)


def test_rollout_prompt_holds_the_last_p_pairs() -> None:
    tokenizer = WordTokenizer()
    router = ScriptedRouter(LEFT)
    play(router, Corridor(length=9), tokenizer)
    prompts = [tokenizer.read(request.prompt_ids) for request in router.requests]
    assert [prompt.count("did: left") for prompt in prompts] == [0, 1, 2, 2, 2, 2]


def test_rollout_long_prompt_drops_the_oldest_history() -> None:
    tokenizer = WordTokenizer()
    router = ScriptedRouter(RIGHT)
    play(router, Corridor(), tokenizer)
    limit = len(router.requests[1].prompt_ids)
    router = ScriptedRouter(RIGHT)
    play(router, Corridor(), tokenizer, settings(prompt_tokens=limit))
    third = tokenizer.read(router.requests[2].prompt_ids)
    assert len(router.requests[2].prompt_ids) <= limit
    assert "seen: You are at 1." in third
    assert "seen: You are at 0." not in third


def test_rollout_is_cut_off_after_max_turns() -> None:
    trajectory = play(ScriptedRouter(LEFT))
    assert len(trajectory.turns) == 6
    assert not trajectory.won
    assert not trajectory.turns[-1].done


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no tags at all",
        "<think>never closed",
        "<think>a</think><action>never closed",
        "<action>right</action><think>a</think>",
        "<think>a</think><action>right</action> and more",
        b"<think>\xff\xfe\x80</think><action>\xc3\x28</action>".decode("utf-8", "replace"),
        "\ud800 lone surrogate \udfff",
        "word " * 10_000,
        "<think>" * 5_000,
        "<action>" + "x" * 100_000 + "</action>",
        "\x00\x01\x1b[2J",
    ],
)
def test_rollout_garbage_is_a_counted_invalid_turn(text: str) -> None:
    env = Corridor()
    trajectory = play(ScriptedRouter(text, RIGHT), env)
    assert trajectory.won
    first = trajectory.turns[0]
    assert not first.valid
    assert all(turn.valid for turn in trajectory.turns[1:])
    first.action.encode("utf-8")


def test_rollout_well_formed_but_not_admissible_is_invalid() -> None:
    first = play(ScriptedRouter("<think>a</think><action>fly</action>", RIGHT)).turns[0]
    assert first.format_valid
    assert not first.valid


def test_rollout_replay_goes_on_from_the_accepted_turns() -> None:
    whole = play(ScriptedRouter(RIGHT, LEFT, RIGHT, RIGHT, RIGHT))
    router = ScriptedRouter(RIGHT)
    seen: list[Any] = []
    again = play(router, replay=whole.turns[:3], on_turn=seen.append)
    assert again.turns[:3] == whole.turns[:3]
    assert [request.turn for request in router.requests] == [3, 4]
    assert [turn.action for turn in again.turns] == [turn.action for turn in whole.turns]
    assert seen == list(again.turns)


def test_rollout_replay_of_a_finished_trajectory_asks_nothing() -> None:
    whole = play(ScriptedRouter(RIGHT))
    router = ScriptedRouter(RIGHT)
    assert play(router, replay=whole.turns).won
    assert router.requests == []


def test_rollout_replay_mismatch_names_turn_and_texts() -> None:
    whole = play(ScriptedRouter(RIGHT))
    changed = replace(whole.turns[0], next_observation="You are in a cellar.")
    with pytest.raises(ReplayMismatch, match=r"task corridor-0, turn 0: .*You are at 1.*cellar"):
        play(ScriptedRouter(RIGHT), replay=(changed, *whole.turns[1:]))


class Raises(Corridor):
    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        raise KeyError("table 4")


class Hangs(Corridor):
    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.released.wait(30)
        return super().step(action)


class PaysNan(Corridor):
    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        answer, _, done, cut, info = super().step(action)
        return answer, math.nan, done, cut, info


def test_rollout_env_that_raises_is_named() -> None:
    with pytest.raises(EnvFailure, match=r"task corridor-0, turn 0: the environment raised KeyError: 'table 4'"):
        play(ScriptedRouter(RIGHT), Raises())


def test_rollout_env_that_hangs_meets_its_deadline() -> None:
    env = Hangs()
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(EnvTimeout, match=r"did not answer within 0\.2 s"):
            play(ScriptedRouter(RIGHT), env, limits=settings(env_step_timeout_s=0.2), pool=pool)
        env.released.set()


def test_rollout_env_that_pays_nan_is_refused() -> None:
    with pytest.raises(EnvFailure, match=r"reward nan \(float\) is not a finite number"):
        play(ScriptedRouter(RIGHT), PaysNan())


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (("at 1", 0.0, False, {}), "is not a tuple (observation, reward, terminated, truncated, info)"),
        ((b"at 1", 0.0, False, False, {}), "observation b'at 1' (bytes) is not a str"),
        (("at 1", "much", False, False, {}), "reward 'much' (str) is not a finite number"),
        (("at 1", 0.0, False, False, None), "info None (NoneType) is not a dict"),
    ],
)
def test_rollout_env_that_answers_in_another_form_is_told_so(answer: Any, says: str) -> None:
    env = Corridor()
    env.step = lambda action: answer  # type: ignore[method-assign]
    with pytest.raises(EnvFailure, match="task corridor-0, turn 0: the environment's ") as failure:
        play(ScriptedRouter(RIGHT), env)
    assert says in str(failure.value)


def test_rollout_env_that_resets_in_another_form_is_told_so() -> None:
    env = Corridor()
    env.reset = lambda **options: "at 0"  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(EnvFailure, match=r"answer 'at 0' \(str\) is not a tuple \(observation, info\)"):
        play(ScriptedRouter(RIGHT), env)


def test_rollout_observation_that_is_far_too_long_is_cut_counted_and_replayed() -> None:
    class Shouting(Corridor):
        """10 MB at the second sight."""

        def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
            observation, *rest = super().step(action)
            self.calls = getattr(self, "calls", 0) + 1
            return (f"begin {'x' * 10_000_000} end" if self.calls == 1 else observation, *rest)  # type: ignore[return-value]

    router = ScriptedRouter(RIGHT)
    trajectory = play(router, Shouting())
    assert [turn.observation_cut for turn in trajectory.turns] == [0, 10_000_010 - 100_000, 0]
    seen = trajectory.turns[1].observation
    assert len(seen) == 100_000 and seen.startswith("begin x") and seen.endswith("x end")
    assert trajectory.turns[0].next_observation == seen
    again = play(ScriptedRouter(RIGHT), Shouting(), replay=trajectory.turns[:2])
    assert again.turns[:2] == trajectory.turns[:2]
    group = TrajectoryGroup(id="g", index=0, task=SPEC.task, trajectories=(replace(trajectory, sibling=0),))
    assert rollout_metrics([group], 0)["cut_observations"] == 1.0
    assert decode_group(encode_group(group)).trajectories[0].turns[1].observation_cut == 9_900_010


def test_rollout_observation_that_no_encoding_has_is_mended() -> None:
    env = Corridor()
    step = env.step
    env.step = lambda action: ("half \ud83d of a pair", *step(action)[1:])  # type: ignore[method-assign]
    trajectory = play(ScriptedRouter(RIGHT), env)
    assert trajectory.turns[1].observation == "half ? of a pair"
    assert encode_turns(trajectory.turns)


def test_env_pool_runs_many_side_by_side_and_tells_the_router_what_it_missed() -> None:
    known: dict[str, int] = {}
    asked = 0

    async def ask(request: TurnRequest, sampling: str, unseen: tuple[Any, ...]) -> TurnReply:
        nonlocal asked
        asked += 1
        known[request.trajectory_id] = known.get(request.trajectory_id, 0) + len(unseen)
        assert known[request.trajectory_id] == request.turn
        await asyncio.sleep(0.01)
        return TurnReply(accepted=make_candidate(), rejected=())

    async def run() -> list[Trajectory]:
        pool = EnvPool(settings(), WordTokenizer(), Corridor, ask)
        specs = [replace(SPEC, sibling=sibling) for sibling in range(64)]
        trajectories = await asyncio.gather(*(pool.run(spec) for spec in specs))
        assert pool.status()["idle_envs"] == 64
        await pool.run(replace(SPEC, sibling=99))
        assert pool.status()["idle_envs"] == 64, "environments are used again"
        return trajectories

    assert all(trajectory.won for trajectory in asyncio.run(run()))
    assert asked == 65 * 3


def test_env_pool_throws_a_failed_environment_away() -> None:
    async def run() -> None:
        pool = EnvPool(settings(), WordTokenizer(), Raises, ScriptedAsk())
        with pytest.raises(EnvFailure):
            await pool.run(SPEC)
        assert pool.status()["idle_envs"] == 0
        assert pool.status()["failures"] == 1

    asyncio.run(run())


class ScriptedAsk:
    async def __call__(self, request: TurnRequest, sampling: str, unseen: tuple[Any, ...]) -> TurnReply:
        return TurnReply(accepted=make_candidate(), rejected=())


def test_env_pool_that_cannot_make_an_environment_says_why() -> None:
    def make() -> Corridor:
        raise FileNotFoundError("games.json")

    with pytest.raises(EnvFailure, match=r"could not be made: FileNotFoundError: games\.json"):
        asyncio.run(EnvPool(settings(), WordTokenizer(), make, ScriptedAsk()).run(SPEC))


def test_load_tokenizer_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"no tokenizer\.json"):
        load_tokenizer(str(tmp_path))


def test_env_side_imports_neither_torch_nor_vllm() -> None:
    code = (
        "import sys, actors.env_pool, actors.rollout; from transformers import PreTrainedTokenizerFast; "
        "import envs.alfworld.env; print([m for m in ('torch', 'vllm', 'deepspeed', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
