"""The router: sends turns to inference servers and draws stalled ones again (TDS, METHOD section 4).

Owns: the TDS decision, the sampling seeds, which server gets which request, retries, and the accepted
turns of live trajectories. Called by `controller.router_actor`. Must not know: Ray, what a server is
made of, environments, or training.

Measuring and deciding are apart: `measure_gamma` says how far a candidate's Φ lies from the previous
turn's, `decide` says which candidate to accept or that another one is to be drawn.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from actors.settings import TDSSettings
from actors.tti_request import RequestRefused
from controller.causes import cause_of
from controller.live_turns import LiveTurns
from envs.records import NOT_MEASURED, Candidate, Int32, SignalRange, Turn, TurnReply, TurnRequest
from envs.seeds import derive_seed

RESAMPLE = -1
"""`decide`: no candidate is accepted yet; draw another one."""

RETRY_PAUSE_S = 0.25
"""Pause after a server failed; it is being restarted meanwhile, or another one is asked."""

MAX_REMEMBERED_GROUPS = 4096
"""Groups whose home server is remembered; beyond that the oldest are forgotten (only the prefix cache suffers)."""

MOST_OUTDATED = 16
"""Entries of the servers' ranking for each server, before the outdated ones are thrown away."""


class TurnFailed(RuntimeError):
    """No server gave a candidate before the deadline, or none ever will; names the turn and the last failure."""


class Server(Protocol):
    """One inference server, as the router sees it. RequestRefused is final, any other error is not."""

    name: str

    async def generate(
        self,
        request_id: str,
        prompt_ids: Int32,
        seed: int,
        signal_range: SignalRange,
        sampling: Any,
        epsilon: float | None,
    ) -> Candidate: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterSettings:
    """The knobs of the router. `sampling` maps "train" and "eval" to what servers are given as sampling."""

    run_seed: int
    tds: TDSSettings
    sampling: Mapping[str, Any]
    tds_in_eval: bool
    request_timeout_s: float
    turn_timeout_s: float
    index: int = 0
    num_routers: int = 1
    """This router among those of the run: they know nothing of each other's requests."""


@dataclass(slots=True)
class _Load:
    """A server and how many requests it has in flight."""

    server: Server
    in_flight: int = 0
    failures: int = 0
    last_failure: str = field(default="")


def measure_gamma(phi: float, previous_phi: float) -> float:
    """Γ = |Φ - Φ of the turn before|; not measured (NaN) when either is not."""
    return abs(phi - previous_phi) if math.isfinite(phi) and math.isfinite(previous_phi) else NOT_MEASURED


def decide(gammas: Sequence[float], eta: float, max_candidates: int) -> int:
    """Which of the candidates drawn so far is accepted, or RESAMPLE.

    The newest one is accepted when it is not stalled: Γ ≥ η, or Γ was not measured (no measurement is
    not the same as zero). When the budget is spent the largest Γ wins, the earliest among equals.
    """
    newest = len(gammas) - 1
    if not gammas[newest] < eta:
        return newest
    if len(gammas) < max_candidates:
        return RESAMPLE
    return max(range(len(gammas)), key=lambda index: gammas[index])


class Router:
    """Answers turn requests. All turns of a group pass through the same router."""

    def __init__(self, servers: Sequence[Server], settings: RouterSettings) -> None:
        self._settings = settings
        self._loads = {server.name: _Load(server) for server in servers}
        self._places: dict[str, int] = {}
        """The order among equally loaded servers: by name, for each router from another one on."""
        self._ranking: list[tuple[int, int, str]] = []
        """A heap of (in flight, place, server), which holds the truth of each server and what was true before."""
        self._rank()
        self._homes: OrderedDict[str, str] = OrderedDict()
        self._kept = LiveTurns()
        self._counts: Counter[str] = Counter()

    async def request_turn(
        self, request: TurnRequest, sampling: Literal["train", "eval"], unseen: tuple[Turn, ...] = ()
    ) -> TurnReply:
        """One accepted candidate, and the ones thrown away before it. Raises TurnFailed at the deadline.

        `unseen` are the trajectory's turns before this one that the router has not recorded yet.
        """
        if unseen:
            self._kept.record(request.trajectory_id, request.turn - len(unseen), unseen)
        tds = self._settings.tds
        active = tds.acts == "paper" and (sampling == "train" or self._settings.tds_in_eval)
        budget = tds.max_candidates if active else 1
        eta = request.thresholds.eta if request.thresholds else tds.eta
        deadline = time.monotonic() + self._settings.turn_timeout_s
        drawn: list[Candidate] = []
        choice = RESAMPLE
        while choice == RESAMPLE:
            candidate = await self._draw(request, len(drawn), self._settings.sampling[sampling], deadline)
            drawn.append(replace(candidate, gamma=measure_gamma(candidate.phi, request.previous_phi), kept=False))
            choice = decide([one.gamma for one in drawn], eta if active else 0.0, budget)
        self._counts["turns"] += 1
        self._counts["resamples"] += len(drawn) - 1
        return TurnReply(
            accepted=replace(drawn[choice], kept=True),
            rejected=tuple(one for index, one in enumerate(drawn) if index != choice),
        )

    async def _draw(self, request: TurnRequest, attempt: int, sampling: Any, deadline: float) -> Candidate:
        """One candidate from some server; a failing server is counted and the request goes elsewhere."""
        task_id, sibling, turn = request.seed_key
        seed = derive_seed(self._settings.run_seed, task_id, sibling, turn, attempt)
        failures = 0
        last = "no inference server is registered"
        avoid = ""
        while time.monotonic() < deadline:
            load = self._pick(request.group_id, stay=attempt == 0, avoid=avoid)
            if load is None:
                await asyncio.sleep(RETRY_PAUSE_S)
                continue
            name = load.server.name
            request_id = f"{request.trajectory_id}/{request.turn}/{attempt}.{failures}"
            timeout = min(self._settings.request_timeout_s, max(deadline - time.monotonic(), 0.001))
            self._count(load, 1)
            try:
                async with asyncio.timeout(timeout):
                    return await load.server.generate(
                        request_id,
                        request.prompt_ids,
                        seed,
                        request.signal_range,
                        sampling,
                        request.thresholds.epsilon if request.thresholds else None,
                    )
            except RequestRefused as error:
                where = f"{request.trajectory_id}, turn {request.turn}"
                raise TurnFailed(f"{where}: {name} refused it: {cause_of(error)}") from error
            except Exception as error:  # the boundary that retries: whatever a server dies of, another is asked
                last = f"{name}: {type(error).__name__}: {error}" if str(error) else f"{name}: {type(error).__name__}"
                failures += 1
                avoid = name
                load.failures += 1
                load.last_failure = last
                self._counts["server_failures"] += 1
            finally:
                self._count(load, -1)
            await asyncio.sleep(RETRY_PAUSE_S)
        raise TurnFailed(
            f"{request.trajectory_id}, turn {request.turn}: no reply within {self._settings.turn_timeout_s:g} s "
            f"({failures} failed requests; last: {last})"
        )

    def _pick(self, group_id: str, *, stay: bool, avoid: str) -> _Load | None:
        """The group's home server (its prefixes are cached there), else the least loaded one."""
        home = self._homes.get(group_id)
        if stay and home in self._loads and (home != avoid or len(self._loads) == 1):
            return self._loads[home]
        name = self._least_loaded(avoid)
        if name is None:
            return None
        # Among equals the home is the best; whether it is among them needs no search.
        if home in self._loads and home != avoid and self._loads[home].in_flight == self._loads[name].in_flight:
            name = home
        if stay:
            self._homes[group_id] = name
            while len(self._homes) > MAX_REMEMBERED_GROUPS:
                self._homes.popitem(last=False)
        return self._loads[name]

    def _least_loaded(self, avoid: str) -> str | None:
        """The server with the fewest requests, by place among equals; `avoid` only if there is no other.

        Costs the logarithm of the number of servers: every turn comes here, and there may be hundreds of servers.
        """
        avoided: tuple[int, int, str] | None = None
        found: str | None = None
        while self._ranking and found is None:
            in_flight, _, name = self._ranking[0]
            if name not in self._loads or self._loads[name].in_flight != in_flight:
                heapq.heappop(self._ranking)  # true no more
            elif name == avoid and len(self._loads) > 1:
                avoided = heapq.heappop(self._ranking)
            else:
                found = name
        if avoided:
            heapq.heappush(self._ranking, avoided)
        return found

    def _count(self, load: _Load, change: int) -> None:
        """One request more or less."""
        load.in_flight += change
        if self._loads.get(load.server.name) is not load:
            return  # it was replaced meanwhile
        name = load.server.name
        heapq.heappush(self._ranking, (load.in_flight, self._places[name], name))
        if len(self._ranking) > MOST_OUTDATED * len(self._loads) + 64:
            self._rank()

    def _rank(self) -> None:
        names = sorted(self._loads)
        # Should all routers begin with the same server, few groups would leave the last ones idle.
        first = self._settings.index * len(names) // self._settings.num_routers
        self._places = {name: (place - first) % len(names) for place, name in enumerate(names)}
        self._ranking = [(load.in_flight, self._places[name], name) for name, load in self._loads.items()]
        heapq.heapify(self._ranking)

    def replace_server(self, name: str, server: Server | None) -> None:
        """Another server under `name` (its restart), or none while it is away; requests in flight fail on their own."""
        if server is None:
            self._loads.pop(name, None)
        else:
            self._loads[name] = _Load(server)
        self._rank()

    def live(self, trajectory_id: str) -> tuple[Turn, ...]:
        """The accepted turns so far; another environment actor can go on from there."""
        return self._kept.of(trajectory_id)

    def forget(self, trajectory_id: str) -> None:
        """The trajectory is finished or was given up."""
        self._kept.forget(trajectory_id)

    def status(self) -> dict[str, Any]:
        """Counts for metrics and the live view."""
        return {
            **self._counts,
            "live_trajectories": len(self._kept),
            "in_flight": {name: load.in_flight for name, load in self._loads.items()},
            "failures": {name: load.failures for name, load in self._loads.items()},
            "last_failures": {name: load.last_failure for name, load in self._loads.items() if load.last_failure},
        }
