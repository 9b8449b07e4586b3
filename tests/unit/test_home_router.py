"""A group's router: the same for everybody, and every router has its share."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.home_router import home_router


@given(st.text(), st.integers(1, 64))
def test_home_router_is_one_of_them(group_id: str, num_routers: int) -> None:
    assert 0 <= home_router(group_id, num_routers) < num_routers
    assert home_router(group_id, 1) == 0


def test_home_router_is_the_same_in_another_process() -> None:
    names = [f"run-g{index:06d}" for index in range(20)]
    code = f"from actors.home_router import home_router\nprint([home_router(name, 5) for name in {names!r}])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == str([home_router(name, 5) for name in names])


@pytest.mark.parametrize("num_routers", [2, 3, 4, 8, 10])
def test_home_router_groups_are_spread_evenly(num_routers: int) -> None:
    """As their names are: numbered. Six standard deviations of a fair draw are allowed."""
    num_groups = 4000
    counts = Counter(home_router(f"run-g{index:06d}", num_routers) for index in range(num_groups))
    share = num_groups / num_routers
    assert len(counts) == num_routers
    assert all(abs(count - share) < 6 * (share * (1 - 1 / num_routers)) ** 0.5 for count in counts.values())
