"""Each fault does what it says, to real processes, files, connections and a real Valkey; and is undone."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import redis

from bench.chaos import bad_environment, clock, queue_memory, signals
from bench.chaos.disk import BALLAST, NoSmallDisk, SmallDisk
from bench.chaos.network import DistantQueue, Proxy
from bench.chaos.processes import Family, lives
from controller.valkey import ValkeyServer
from envs.panel import load_panel
from envs.settings import EnvSettings

PATIENCE_S = 20.0


def soon(happened: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@contextmanager
def a_process(*command: str) -> Iterator[psutil.Process]:
    process = subprocess.Popen(command or ("sleep", "60"))
    try:
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait(PATIENCE_S)


def test_frozen_process_stands_until_it_is_thawed() -> None:
    with a_process() as process:
        thaw = signals.freeze(process)
        assert soon(lambda: process.status() == psutil.STATUS_STOPPED)
        thaw()
        assert soon(lambda: process.status() != psutil.STATUS_STOPPED)
        signals.kill(process)
        assert soon(lambda: not lives(process))
        thaw()  # of one that somebody ended: nothing


def test_family_knows_its_orphans_and_who_was_born_and_orphaned_unseen() -> None:
    family = Family()
    # The controller's child dies at once and leaves a grandchild that descends from nobody of the run.
    script = "import subprocess, sys; subprocess.run(['sh', '-c', 'sleep 61 & exit 0']); sys.stdin.read()"
    controller = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE)
    try:
        family.follow(controller.pid)
        assert soon(lambda: any(process.cmdline() == ["sleep", "61"] for process in family.left()))
        assert [process.pid for process in family.find("controller")] == [controller.pid]
        controller.kill()
        controller.wait(PATIENCE_S)
        assert ["sleep 61" in one for one in family.gone(0.3)] == [True]
    finally:
        family.end()
        controller.kill()
        controller.wait(PATIENCE_S)
    assert family.left() == []


def test_another_run_is_not_of_the_family() -> None:
    with a_process():  # begun before the mark
        family = Family()
        assert family.left() == []
        with a_process() as other:
            assert [process.pid for process in family.left()] == [other.pid]


def test_full_disk_refuses_writes_until_it_is_freed(tmp_path: Path) -> None:
    try:
        disk = SmallDisk(tmp_path / "run")
    except NoSmallDisk as error:
        pytest.skip(str(error))
    try:
        free = disk.fill()
        with pytest.raises(OSError) as caught:
            (disk.folder / "checkpoint").write_bytes(bytes(1 << 16))
        assert caught.value.errno == errno.ENOSPC
        free()
        (disk.folder / "audit.jsonl").write_bytes(b"{}\n")
        disk.keep(tmp_path / "kept")
        assert not (disk.folder / BALLAST).exists()
    finally:
        disk.unmount()
    assert (tmp_path / "kept" / "audit.jsonl").read_bytes() == b"{}\n"
    assert not list((tmp_path / "run").iterdir())


def test_server_without_memory_refuses_writes_until_it_has_some(tmp_path: Path) -> None:
    with ValkeyServer(tmp_path / "queue") as server, redis.Redis.from_url(server.url) as client:
        give_back = queue_memory.fill(tmp_path / "queue")
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            client.set("a", "b")
        give_back()
        assert client.set("a", "b")


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """A server that sends back what it is sent."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def answer(connection: socket.socket) -> None:
        try:
            while data := connection.recv(1 << 16):
                connection.sendall(data)
        except OSError:
            return

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()
    listener.close()


def test_proxy_carries_everything_both_ways_in_order(echo: tuple[str, int]) -> None:
    proxy = Proxy(echo)
    data = os.urandom(1 << 20)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE_S) as connection:
        threading.Thread(target=connection.sendall, args=(data,), daemon=True).start()
        came = b""
        while len(came) < len(data):
            came += connection.recv(1 << 16)
    proxy.close()
    assert came == data


def test_silent_network_delivers_when_it_is_well_again(echo: tuple[str, int]) -> None:
    proxy = Proxy(echo)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE_S) as connection:
        connection.sendall(b"1")
        assert connection.recv(1) == b"1"
        proxy.mode = "silent"
        time.sleep(0.1)
        connection.sendall(b"2")
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        proxy.mode = "well"
        connection.settimeout(PATIENCE_S)
        assert connection.recv(1) == b"2"
    proxy.close()


def test_closed_network_resets_old_and_new_connections(echo: tuple[str, int]) -> None:
    proxy = Proxy(echo)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE_S) as connection:
        connection.sendall(b"1")
        assert connection.recv(1) == b"1"
        proxy.mode = "closed"
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with (
        pytest.raises(ConnectionResetError),
        socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE_S) as connection,
    ):
        connection.recv(1)
        raise ConnectionResetError  # an orderly end: what the reset became before it was read
    proxy.close()


@pytest.mark.parametrize("how", ["silent", "partition", "closed"])
def test_queue_that_is_cut_off_answers_again_when_the_network_is_well(tmp_path: Path, how: str) -> None:
    distant = DistantQueue(tmp_path / "queue")
    try:
        with redis.Redis.from_url(distant.url, password=distant.password, socket_timeout=1.0) as client:
            assert client.set("a", "1")
            heal = distant.disturb(how)
            time.sleep(0.1)
            with pytest.raises(redis.RedisError):
                client.get("a")
            heal()
            client.connection_pool.disconnect()

            def answers() -> bool:
                try:
                    return bool(client.get("a") == b"1")
                except redis.RedisError:
                    return False

            assert soon(answers)
        assert distant.way
    finally:
        distant.close()


def test_clock_of_a_process_jumps_while_it_runs_and_its_monotonic_clock_does_not(tmp_path: Path) -> None:
    file = tmp_path / "clock"
    script = (
        "import time, sys\n"
        "before, steady = time.time(), time.monotonic()\n"
        "print(flush=True); sys.stdin.readline(); time.sleep(0.5)\n"
        "print(round(time.time() - before, -2), round(time.time_ns() / 1e9 - before, -2))\n"
        "print(time.monotonic() - steady < 60)\n"
    )
    command = subprocess.Popen(
        [sys.executable, "-c", script], env={**os.environ, **clock.environment(file)}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert command.stdout is not None
    command.stdout.readline()
    clock.jump(file, -3600.0)
    said, _ = command.communicate("\n", timeout=PATIENCE_S)
    assert said.split() == ["-3600.0", "-3600.0", "True"]


def test_environment_misbehaves_as_often_as_it_is_told_and_nowhere_else(tmp_path: Path) -> None:
    panel = load_panel(bad_environment.NAME, "train")
    bad, good = panel.tasks[0], panel.tasks[1]
    orders = bad_environment.orders("raises", bad.id, 1, 2, tmp_path / "marks")
    settings = EnvSettings(name=bad_environment.NAME, options=orders)
    for task, misdeeds in ((good, 0), (bad, 2), (bad, 2)):
        for _ in range(3):
            env = bad_environment.BadAlfworld().make(settings)
            env.reset(options={"task": task})
            env.step("look")
            try:
                env.step("look")
            except bad_environment.EnvironmentOutOfOrder:
                continue
        assert len(list((tmp_path / "marks").iterdir())) == misdeeds if misdeeds else True


def test_environment_returns_ten_megabytes(tmp_path: Path) -> None:
    task = load_panel(bad_environment.NAME, "train").tasks[0]
    orders = bad_environment.orders("returns 10 MB", task.id, 0, 1, tmp_path / "marks")
    assert json.loads(orders)["times"] == 1
    env = bad_environment.BadAlfworld().make(EnvSettings(name=bad_environment.NAME, options=orders))
    env.reset(options={"task": task})
    assert len(env.step("look")[0]) == pytest.approx(10 * 2**20, rel=1e-6)
    assert len(env.step("look")[0]) < 10_000
