"""The router: TDS decision, seeds, choice of server, failures, live turns."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import time
from collections.abc import Callable

import numpy as np
import pytest

from actors.settings import TDSSettings
from actors.tti_request import RequestRefused
from controller.router import RESAMPLE, Router, RouterSettings, TurnFailed, decide, measure_gamma
from envs.records import Candidate, SignalRange, Thresholds, Turn, TurnRequest
from envs.seeds import derive_seed
from tests.fakes import FakeServer, make_candidate, make_turn

NAN = math.nan


def settings(**changes: object) -> RouterSettings:
    values: dict[str, object] = {
        "run_seed": 11,
        "tds": TDSSettings(enabled=True, eta=0.1, max_candidates=3),
        "sampling": {"train": "train sampling", "eval": "eval sampling"},
        "tds_in_eval": False,
        "request_timeout_s": 5.0,
        "turn_timeout_s": 5.0,
    }
    return RouterSettings(**{**values, **changes})  # type: ignore[arg-type]


def request(turn: int = 1, previous_phi: float = 0.5, group: str = "g0", sibling: int = 0) -> TurnRequest:
    return TurnRequest(
        trajectory_id=f"{group}/{sibling}/0",
        group_id=group,
        turn=turn,
        prompt_ids=np.array([1, 2], dtype=np.int32),
        signal_range=SignalRange(),
        previous_phi=previous_phi,
        seed_key=("train/t", sibling, turn),
    )


def phis(*values: float) -> Callable[[int, int], Candidate]:
    def answer(number: int, seed: int) -> Candidate:
        return make_candidate(phi=values[min(number, len(values) - 1)], seed=seed)

    return answer


@pytest.mark.parametrize(
    ("gammas", "chosen"),
    [
        ([0.2], 0),
        ([0.1], 0),  # Γ = η is not stalled
        ([0.05], RESAMPLE),
        ([NAN], 0),  # not measured is not zero
        ([0.05, NAN], 1),
        ([0.05, 0.3], 1),
        ([0.05, 0.02], RESAMPLE),
        ([0.05, 0.02, 0.01], 0),  # budget spent: the largest wins
        ([0.02, 0.05, 0.05], 1),  # the earliest among equals
        ([0.01, 0.02, 0.4], 2),
    ],
)
def test_router_decide(gammas: list[float], chosen: int) -> None:
    assert decide(gammas, eta=0.1, max_candidates=3) == chosen


def test_router_gamma_without_a_measurement_is_nan() -> None:
    assert measure_gamma(0.25, 0.75) == 0.5
    assert math.isnan(measure_gamma(NAN, 0.5))
    assert math.isnan(measure_gamma(0.5, NAN))


def test_router_resamples_a_stalled_turn_and_returns_every_candidate() -> None:
    server = FakeServer("a", phis(0.52, 0.45, 0.9))
    reply = asyncio.run(Router([server], settings()).request_turn(request(), "train"))
    assert reply.accepted.phi == 0.9
    assert reply.accepted.kept
    assert [one.phi for one in reply.rejected] == [0.52, 0.45]
    assert not any(one.kept for one in reply.rejected)
    assert [one.gamma for one in reply.rejected] == pytest.approx([0.02, 0.05])
    assert server.seeds == [derive_seed(11, "train/t", 0, 1, attempt) for attempt in range(3)]
    assert len(set(server.request_ids)) == 3


def test_router_keeps_the_best_when_the_budget_is_spent() -> None:
    reply = asyncio.run(Router([FakeServer("a", phis(0.52, 0.58, 0.5))], settings()).request_turn(request(), "train"))
    assert reply.accepted.phi == 0.58
    assert [one.phi for one in reply.rejected] == [0.52, 0.5]


def test_router_first_turn_has_nothing_to_compare_with() -> None:
    server = FakeServer("a", phis(0.5))
    reply = asyncio.run(Router([server], settings()).request_turn(request(turn=0, previous_phi=NAN), "train"))
    assert len(server.request_ids) == 1
    assert math.isnan(reply.accepted.gamma)


@pytest.mark.parametrize(("enabled", "sampling", "in_eval", "drawn"), [
    (False, "train", False, 1), (True, "eval", False, 1), (True, "eval", True, 3), (True, "train", False, 3),
])  # fmt: skip
def test_router_draws_once_when_tds_is_off(enabled: bool, sampling: str, in_eval: bool, drawn: int) -> None:
    server = FakeServer("a", phis(0.5))
    router = Router(
        [server], settings(tds=TDSSettings(enabled=enabled, eta=0.1, max_candidates=3), tds_in_eval=in_eval)
    )
    reply = asyncio.run(router.request_turn(request(), sampling))  # type: ignore[arg-type]
    assert len(server.request_ids) == drawn
    assert reply.accepted.gamma == 0.0, "Γ is measured even when nothing is decided by it"
    assert server.samplings[0] == f"{sampling} sampling"


def test_router_sends_a_group_to_its_home_and_new_groups_to_the_least_loaded() -> None:
    servers = [FakeServer("a", phis(0.5), delay_s=0.05), FakeServer("b", phis(0.5), delay_s=0.05)]
    router = Router(servers, settings(tds=TDSSettings(enabled=False)))

    async def play() -> None:
        await asyncio.gather(*(router.request_turn(request(group=f"g{n % 2}", sibling=n), "train") for n in range(8)))

    asyncio.run(play())
    homes = [{one.split("/")[0] for one in server.request_ids} for server in servers]
    assert sorted(map(sorted, homes)) == [["g0"], ["g1"]]


def test_router_asks_another_server_when_one_fails_and_counts_it() -> None:
    def broken(number: int, seed: int) -> Candidate:
        raise ConnectionError("engine died")

    a, b = FakeServer("a", broken), FakeServer("b", phis(0.9))
    router = Router([a, b], settings())
    reply = asyncio.run(router.request_turn(request(), "train"))
    assert reply.accepted.phi == 0.9
    assert router.status()["server_failures"] == 1
    assert "engine died" in router.status()["last_failures"]["a"]
    assert b.seeds == a.seeds, "a retry is the same draw, not another one"


def test_router_gives_up_at_the_deadline_with_the_cause() -> None:
    def broken(number: int, seed: int) -> Candidate:
        raise ConnectionError("engine died")

    router = Router([FakeServer("a", broken)], settings(turn_timeout_s=0.6))
    with pytest.raises(TurnFailed, match=r"g0/0/0, turn 1: no reply within 0.6 s.*engine died"):
        asyncio.run(router.request_turn(request(), "train"))


def test_router_does_not_repeat_what_is_refused_for_good() -> None:
    def refuse(number: int, seed: int) -> Candidate:
        raise RequestRefused("window = 1001 must be from 1 to 1000")

    server = FakeServer("a", refuse)
    began = time.monotonic()
    with pytest.raises(TurnFailed, match=r"g0/0/0, turn 1: a refused it: .*window = 1001"):
        asyncio.run(Router([server, FakeServer("b", phis(0.9))], settings()).request_turn(request(), "train"))
    assert len(server.request_ids) == 1 and time.monotonic() - began < 1.0


def test_router_waits_for_a_frozen_server_no_longer_than_its_deadline() -> None:
    router = Router([FakeServer("a", phis(0.5), delay_s=60)], settings(request_timeout_s=0.2, turn_timeout_s=0.5))
    with pytest.raises(TurnFailed, match="TimeoutError"):
        asyncio.run(router.request_turn(request(), "train"))


def test_router_without_servers_waits_for_a_replacement() -> None:
    router = Router([FakeServer("a", phis(0.5))], settings())
    router.replace_server("a", None)

    async def play() -> float:
        waiting = asyncio.create_task(router.request_turn(request(previous_phi=0.9), "train"))
        await asyncio.sleep(0.05)
        router.replace_server("a", FakeServer("a", phis(0.1)))
        return (await waiting).accepted.phi

    assert asyncio.run(play()) == 0.1


def test_router_keeps_live_turns_and_distrusts_gaps() -> None:
    router = Router([FakeServer("a", phis(0.9))], settings())
    first, second, third = make_turn(0), make_turn(1), make_turn(2)

    def ask(turn: int, unseen: tuple[Turn, ...], group: str = "g0") -> None:
        asyncio.run(router.request_turn(request(turn=turn, group=group), "train", unseen))

    ask(2, (first, second))
    assert router.live("g0/0/0") == (first, second)
    ask(3, (second, third))  # a repeated delivery overlaps
    assert router.live("g0/0/0") == (first, second, third)
    ask(5, (third,), group="g1")  # the router was restarted in between
    assert router.live("g1/0/0") == ()
    router.forget("g0/0/0")
    assert router.live("g0/0/0") == ()


def test_router_thresholds_of_a_request_win_over_the_settings() -> None:
    server = FakeServer("a", phis(0.5, 0.9))
    router = Router([server], settings(tds=TDSSettings(eta=0.5, max_candidates=2)))
    asked = dataclasses.replace(request(previous_phi=0.4), thresholds=Thresholds(epsilon=0.07, eta=0.05))
    assert asyncio.run(router.request_turn(asked, "train")).rejected == ()
    stalled = dataclasses.replace(asked, thresholds=Thresholds(epsilon=0.08, eta=0.6))
    assert len(asyncio.run(router.request_turn(stalled, "train")).rejected) == 1
    asyncio.run(router.request_turn(request(), "train"))
    assert server.epsilons[:3] == [0.07, 0.08, 0.08] and server.epsilons[-1] is None


def test_router_resample_goes_to_another_server_when_its_own_is_busier() -> None:
    """The group's home serves the first try; a resample request goes to whoever has the least to do."""

    async def scene() -> list[str]:
        home, other = FakeServer("a", phis(0.5)), FakeServer("b", phis(0.9))
        router = Router([home, other], settings(tds=TDSSettings(eta=0.1, max_candidates=2)))
        await router.request_turn(request(turn=0, previous_phi=math.nan), "train")  # makes "a" the home of g0
        home.delay_s = 0.2
        slow = [asyncio.create_task(router.request_turn(request(sibling=n), "train")) for n in (1, 2)]
        await asyncio.sleep(0.05)
        before = len(other.request_ids)
        await asyncio.gather(*slow)
        return other.request_ids[before:]

    resampled = asyncio.run(scene())
    assert len(resampled) >= 1 and all(name.rsplit("/", 1)[1].startswith("1.") for name in resampled)


def test_router_a_resample_never_delays_another_trajectory() -> None:
    """While one trajectory's stalled turn sits with a server that takes half a second, twenty turns of another are
    answered by a quick one."""

    async def scene() -> tuple[int, bool]:
        slow, quick = FakeServer("slow", phis(0.5), delay_s=0.5), FakeServer("quick", phis(0.9))
        router = Router([slow, quick], settings(tds=TDSSettings(eta=0.1, max_candidates=4)))
        router._homes["stalled"], router._homes["other"] = "slow", "quick"
        stalled = asyncio.create_task(router.request_turn(request(group="stalled"), "train"))
        await asyncio.sleep(0)
        answered = 0
        for turn in range(1, 21):
            await router.request_turn(request(turn=turn, group="other", sibling=1), "train")
            answered += 1
        still_waiting = not stalled.done()
        await stalled
        return answered, still_waiting

    assert asyncio.run(scene()) == (20, True)
