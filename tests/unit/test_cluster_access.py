"""The way into a Ray that runs: address and token, and what is said when one of them is wrong."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from controller.cluster_access import AccessError, find_access, probe
from controller.cluster_settings import ClusterSettings
from controller.config import ConfigError, validate
from controller.joined_session import JoinedSession, session_for
from controller.local_cluster.state import FOLDER_VARIABLE, ClusterError
from controller.ray_session import RaySession


@pytest.mark.parametrize("address", ["", "local", "auto", "10.0.0.5:6379", "head.example:1", "[fd00::1]:6379"])
def test_addresses_that_can_be_meant_are_taken(address: str) -> None:
    assert ClusterSettings(address=address).address == address


@pytest.mark.parametrize("address", ["here", "host:", ":6379", "host:0", "host:99999", "ray://host:10001", "host:x"])
def test_other_addresses_are_refused_with_the_forms_that_there_are(address: str) -> None:
    with pytest.raises(ConfigError, match="cluster.address = .*host:port of a running Ray"):
        validate({"cluster": {"address": address}}, source="test")


def test_token_comes_from_its_file_or_its_variable(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("secret\n", encoding="ascii")
    assert find_access("h:1", {"RAY_AUTH_TOKEN_PATH": str(file)}).token == file
    assert find_access("h:1", {"RAY_AUTH_TOKEN": "x", "RAY_AUTH_TOKEN_PATH": "/nowhere"}).token is None
    assert find_access("auto", {"RAY_AUTH_TOKEN": "x", "RAY_ADDRESS": "head:2"}).address == "head:2"


def test_cluster_without_a_token_is_not_joined(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="no token for it; set RAY_AUTH_TOKEN_PATH .*without authentication"):
        find_access("h:1", {})
    with pytest.raises(AccessError, match="cannot be read"):
        find_access("h:1", {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")})
    (tmp_path / "empty").write_text(" \n", encoding="ascii")
    with pytest.raises(AccessError, match="is empty"):
        find_access("h:1", {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "empty")})


def test_local_cluster_that_is_not_up_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(ClusterError, match="no cluster is up; `t2po cluster up`"):
        find_access("local", {})


def test_address_where_nobody_answers_is_said_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        probe(f"127.0.0.1:{port}")
    with pytest.raises(AccessError, match=f"127.0.0.1:{port}: nobody answers there"):
        probe(f"127.0.0.1:{port}")


def test_run_gets_a_private_ray_unless_an_address_is_given() -> None:
    assert isinstance(session_for("", None, 10**8), RaySession)
    joined = session_for("local", None, 10**8)
    assert isinstance(joined, JoinedSession)
    assert joined.metrics_addresses() == []
    joined.end_children_of(1)
    joined.stop()  # never started: nothing happens
