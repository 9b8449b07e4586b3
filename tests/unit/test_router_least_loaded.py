"""Which server the router asks, against the plain search over all of them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from actors.settings import TDSSettings
from controller import router
from controller.router import MOST_OUTDATED, Router, RouterSettings
from controller.router_actor import RouterActor
from tests.fakes import FakeServer, make_candidate

NAMES = [f"inference-{index}" for index in range(6)]


def server(name: str) -> FakeServer:
    return FakeServer(name, lambda number, seed: make_candidate())


def make_router(names: list[str], index: int = 0, num_routers: int = 1) -> Router:
    knobs = RouterSettings(
        run_seed=0, tds=TDSSettings(), sampling={}, tds_in_eval=False, request_timeout_s=5, turn_timeout_s=5,
        index=index, num_routers=num_routers,
    )  # fmt: skip
    return Router([server(name) for name in names], knobs)


def plain(asked: Router, group: str, *, stay: bool, avoid: str) -> str | None:
    """Looks at every server."""
    loads, home = asked._loads, asked._homes.get(group)
    usable = [name for name in loads if name != avoid] or list(loads)
    if stay and home in usable:
        return home
    knobs = asked._settings
    names = sorted(loads)
    first = knobs.index * len(names) // knobs.num_routers
    turned = names[first:] + names[:first]
    return min(usable, key=lambda one: (loads[one].in_flight, one != home, turned.index(one)), default=None)


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("pick"), st.sampled_from("abcd"), st.booleans(), st.sampled_from(["", *NAMES])),
        st.tuples(st.just("end"), st.integers(0, 50), st.none(), st.none()),
        st.tuples(st.just("leave"), st.sampled_from(NAMES), st.none(), st.none()),
        st.tuples(st.just("come"), st.sampled_from(NAMES), st.none(), st.none()),
    ),
    max_size=120,
)


@settings(max_examples=200, deadline=None)
@given(ACTIONS, st.integers(0, 2))
def test_router_least_loaded_is_what_a_search_over_all_finds(
    actions: list[tuple[str, str | int, bool, str]], index: int
) -> None:
    asked = make_router(NAMES[:4], index, 3)
    under_way: list[router._Load] = []
    for action, value, stay, avoid in actions:
        if action == "pick":
            expected = plain(asked, str(value), stay=stay, avoid=avoid)
            load = asked._pick(str(value), stay=stay, avoid=avoid)
            assert (load.server.name if load else None) == expected
            if load:
                asked._count(load, 1)
                under_way.append(load)
        elif action == "end" and under_way:
            asked._count(under_way.pop(int(value) % len(under_way)), -1)
        elif action == "leave":
            asked.replace_server(str(value), None)
        elif action == "come":
            asked.replace_server(str(value), server(str(value)))


def test_router_takes_more_calls_at_once_than_trajectories_live_at_a_time() -> None:
    """Each live trajectory has a call in the router; what comes beyond the limit waits in line, pings too."""
    assert RouterActor._default_options["max_concurrency"] >= 32_768


def test_router_least_loaded_remembers_no_more_than_so_much_of_the_past() -> None:
    asked = make_router(NAMES)
    for number in range(5000):
        load = asked._pick(f"g{number}", stay=False, avoid="")
        assert load is not None
        asked._count(load, 1)
        if number % 3:
            asked._count(load, -1)
    assert len(asked._ranking) <= MOST_OUTDATED * len(NAMES) + 65


def test_router_several_of_them_share_the_servers_out() -> None:
    """They know nothing of each other: each begins with another server, so that two groups each take all four."""
    taken = []
    for index in range(2):
        asked = make_router(NAMES[:4], index, 2)
        for group in ("a", "b"):
            load = asked._pick(group, stay=True, avoid="")
            assert load is not None
            asked._count(load, 1)
            taken.append(load.server.name)
    assert taken == NAMES[:4]
