"""The replay queue over TLS, with user and password: a real server behind a TLS end of our own."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from controller.queue_address import queue_address
from controller.replay_queue import QueueError, ReplayQueue
from controller.valkey import ValkeyServer
from tests.unit.test_codec_round_trip import a_group


def certificate(folder: Path) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate: apt-get install openssl")
    key, cert = folder / "key.pem", folder / "cert.pem"
    request = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    subprocess.run(
        ["openssl", *request.split(), "-addext", names, "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
    )
    return key, cert


def relay(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """A port that speaks TLS, and the certificate to trust."""
    folder = tmp_path_factory.mktemp("tls")
    key, cert = certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with ValkeyServer(folder / "queue") as server, socket.create_server(("127.0.0.1", 0)) as listener:
        redis.Redis.from_url(server.url).acl_setuser(
            "worker", enabled=True, passwords=["+p@ss/word"], keys=["t2po:*"], categories=["+@all", "-@dangerous"]
        )
        port = int(server.url.rsplit(":", 1)[1].split("/")[0])

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    plain, _ = listener.accept()
                    try:
                        outer = context.wrap_socket(plain, server_side=True)
                    except OSError:  # who does not trust us hangs up
                        continue
                    inner = socket.create_connection(("127.0.0.1", port))
                    for ends in ((outer, inner), (inner, outer)):
                        threading.Thread(target=relay, args=ends, daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1], cert
        listener.shutdown(socket.SHUT_RDWR)


def test_groups_over_tls_with_user_and_password(tls_server: tuple[int, Path]) -> None:
    port, cert = tls_server
    environment = {"T2PO_QUEUE_USER": "worker", "T2PO_QUEUE_PASSWORD": "p@ss/word"}
    url = queue_address(f"rediss://localhost:{port}/0", str(cert), environment)
    with contextlib.closing(ReplayQueue(url, uuid.uuid4().hex, 10, 5.0)) as queue:
        assert queue.push(a_group()) and not queue.push(a_group())
        [entry] = queue.pull(1, 1.0)
        assert queue.pull(1, 0.3) == [], "a blocking read works through TLS"
        queue.acknowledge([entry.entry_id])
        assert queue.depth() == 0


def test_certificate_that_is_not_trusted(tls_server: tuple[int, Path]) -> None:
    with pytest.raises(
        QueueError, match=r"rediss://worker:\*\*\*@localhost.*certificate verify failed.*set queue\.ca_file"
    ):
        ReplayQueue(f"rediss://worker:p%40ss%2Fword@localhost:{tls_server[0]}/0", "run", 10, 30.0)


def test_plain_url_for_a_tls_port(tls_server: tuple[int, Path]) -> None:
    with pytest.raises(QueueError, match="cannot open the queue"):
        ReplayQueue(f"redis://worker:secret@localhost:{tls_server[0]}/0", "run", 10, 0.5)


@pytest.mark.parametrize(
    ("user", "password", "cause"),
    [("worker", "guess", "invalid username-password"), ("nobody", "p@ss/word", "invalid username-password")],
)
def test_wrong_user_or_password_is_refused_without_naming_the_password(
    tls_server: tuple[int, Path], user: str, password: str, cause: str
) -> None:
    port, cert = tls_server
    environment = {"T2PO_QUEUE_USER": user, "T2PO_QUEUE_PASSWORD": password}
    url = queue_address(f"rediss://localhost:{port}/0", str(cert), environment)
    with pytest.raises(QueueError, match=rf"rediss://{user}:\*\*\*@.*{cause}.*T2PO_QUEUE_PASSWORD") as caught:
        ReplayQueue(url, "run", 10, 5.0)
    assert password not in str(caught.value).replace("username-password", "")


def test_user_sees_the_keys_of_runs_alone(tls_server: tuple[int, Path]) -> None:
    """An ACL that permits t2po:* and no dangerous command is enough for every method of the queue."""
    port, cert = tls_server
    url = f"rediss://worker:p%40ss%2Fword@localhost:{port}/0?ssl_ca_certs={cert}"
    with contextlib.closing(ReplayQueue(url, uuid.uuid4().hex, 10, 5.0)) as queue:
        queue.push(a_group())
        [entry] = queue.pull(1, 1.0)
        assert queue.recover() == [] and queue.states([entry.group.id]) == {entry.group.id: "queued"}
        queue.acknowledge([entry.entry_id])
        assert queue.acknowledged() == [entry.group.id]
        queue.forget([entry.group.id])
        assert queue.foreign_counts() == {}
        queue.discard()
    with contextlib.closing(redis.Redis.from_url(url)) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.get("other")
