"""The way into a Ray that runs already: its address, and the token that it asks for.

Owns: finding both, the probe whether anybody answers, making Ray use the token. Called by `controller.joined_session`,
`controller.preflight` and `controller.local_cluster.ray_nodes`. Must not know: what is done there.

Only clusters with token authentication are used: whoever reaches a Ray without it runs code on its machines. The token
is never written anywhere; Ray reads it from its file or its variable.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from controller.cluster_settings import AUTO, LOCAL
from controller.local_cluster.state import cluster_folder, live_state

TOKEN, TOKEN_PATH = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
CONNECT_TIMEOUT_S = 5.0


class AccessError(RuntimeError):
    """A cluster that cannot be joined; names its address, the cause and the remedy."""


@dataclass(frozen=True, slots=True)
class Access:
    """`address`: host:port, or "auto" for Ray to find. `token`: its file; None: Ray has it from RAY_AUTH_TOKEN."""

    address: str
    token: Path | None


def find_access(address: str, environment: Mapping[str, str] = os.environ) -> Access:
    """By the knob `cluster.address`. AccessError or ClusterError; nobody is asked yet."""
    if address == LOCAL:
        state = live_state(cluster_folder())
        return Access(state.address, _readable(Path(state.token), address))
    if address == AUTO and environment.get("RAY_ADDRESS"):
        address = environment["RAY_ADDRESS"]
    if environment.get(TOKEN):
        return Access(address, None)
    if path := environment.get(TOKEN_PATH):
        return Access(address, _readable(Path(path).expanduser(), address))
    raise AccessError(
        f"cluster.address = {address}: there is no token for it; set {TOKEN_PATH} to the file with the cluster's. A "
        "Ray without authentication is not joined: whoever reaches its port runs code on it (start it with "
        "RAY_AUTH_MODE=token)"
    )


def probe(address: str, timeout_s: float = CONNECT_TIMEOUT_S) -> None:
    """Returns when somebody listens there. AccessError; Ray itself would try for a minute."""
    if address == AUTO:
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout_s).close()
    except OSError as error:
        raise AccessError(
            f"cluster.address = {address}: nobody answers there ({error.strerror or error}); is the cluster up, and is "
            "this the port of its head (GCS)? `t2po cluster status` shows the one of this machine"
        ) from error


def use_token(token: Path | None) -> None:
    """Makes this process's Ray use it, whatever it read from the environment at its import."""
    os.environ["RAY_AUTH_MODE"] = "token"
    if token is not None:
        os.environ.pop(TOKEN, None)  # it would go before the file
        os.environ[TOKEN_PATH] = str(token)
    read_environment_again()


def read_environment_again() -> None:
    """Ray reads its settings and its token once, at its import: which may have been long ago."""
    from ray._raylet import AuthenticationTokenLoader, Config

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _readable(path: Path, address: str) -> Path:
    try:
        empty = not path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise AccessError(f"cluster.address = {address}: its token {path} cannot be read ({error})") from error
    if empty:
        raise AccessError(f"cluster.address = {address}: its token {path} is empty; copy the cluster's token there")
    return path.absolute()
