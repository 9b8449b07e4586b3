"""How a raylet of a local cluster is started: closed, on ports of its own, with GPUs of its own."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from controller.local_cluster.raylets import (
    PORT_OPTIONS,
    command,
    deal_gpus,
    free_ports,
    is_free,
    raylet_environment,
)
from controller.local_cluster.state import ClusterError


def test_head_serves_no_dashboard_and_no_client() -> None:
    words = command("head", "10.0.0.1:6400", tuple(range(6401, 6407)), Path("/tmp/x"), 128)
    assert {"--head", "--port=6400", "--include-dashboard=false", "--min-worker-port=0"} <= set(words)
    assert '--resources={"t2po_head": 16}' in words
    assert not any(word.startswith("--ray-client-server-port") for word in words)
    assert 'get_ray_client_dependency_error = lambda: "not offered"' in " ".join(words)
    worker = command("env", "10.0.0.1:6400", tuple(range(6401, 6407)), Path("/tmp/x"), 128)
    assert "--address=10.0.0.1:6400" in worker
    assert '--resources={"t2po_env": 2}' in worker


def test_every_raylet_asks_for_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_ADDRESS", "another:1")
    environment = raylet_environment(tmp_path / "token")
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_AUTH_TOKEN_PATH"] == str(tmp_path / "token")
    assert "RAY_ADDRESS" not in environment


def test_port_that_is_taken_is_not_given_out() -> None:
    ports = free_ports(3 * len(PORT_OPTIONS), ())
    assert len(set(ports)) == len(ports)
    assert max(ports) < 10000
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not is_free(server.getsockname()[1])
    assert not set(free_ports(100, set(range(6400, 9000)))) & set(range(6400, 9000))
    with pytest.raises(ClusterError, match="free ports from 6400 to 9400 are needed, 0 are there"):
        free_ports(1, range(6400, 9400))


NAMES = [("head", "head"), ("env-0", "env"), ("inference-0", "inference"), ("learner-0", "learner")]


def test_gpus_are_dealt_evenly_to_learners_and_engines() -> None:
    none: dict[str, tuple[int, ...]] = {name: () for name, _ in NAMES}
    assert deal_gpus(NAMES, [], any_there=False) == none
    assert deal_gpus(NAMES, [0, 1, 2, 3], any_there=True) == {**none, "learner-0": (0, 1), "inference-0": (2, 3)}
    assert deal_gpus(NAMES[:2], [], any_there=True) == {"head": (), "env-0": ()}
    with pytest.raises(ClusterError, match="learner-0, inference-0: want a GPU each and 1 of the machine's are free"):
        deal_gpus(NAMES, [5], any_there=True)
