"""Which runs are watched, what is refused, and what is recorded: without starting a program."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from controller.cli import main
from controller.config import load_config
from controller.monitoring import lineup, programs
from controller.monitoring.configuration import prometheus_file
from controller.monitoring.lineup import Options
from controller.monitoring.stack import down, running, up
from controller.monitoring.watched_runs import MonitoringError, WatchedRun, check_together, watched_run
from controller.process_identity import ProcessId
from controller.run_folder import RunFolder


def some_run(folder: Path, name: str = "a", port: int = 9464) -> WatchedRun:
    return WatchedRun(name, folder / name, port, folder / name / "metric-targets.json", None)


def run_folder(folder: Path, *changes: str, name: str = "a") -> Path:
    config = load_config("alfworld", [f"runs_dir={folder}", f"name={name}", *changes])
    with RunFolder.create(config, "alfworld") as run:
        return run.path


def test_a_run_that_is_not_under_way_has_no_queue_server(tmp_path: Path) -> None:
    found = watched_run(run_folder(tmp_path, "metrics.port=9555"))
    assert (found.name, found.port, found.queue) == ("a", 9555, None)
    assert found.targets == tmp_path / "a" / "metric-targets.json"


def test_the_embedded_server_is_found_with_its_password(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    (folder / "queue" / "server.json").write_text('{"port": 4711}')
    (folder / "queue" / "valkey.conf").write_text("port 4711\nrequirepass secret-1\n")
    queue = watched_run(folder).queue
    assert queue is not None
    assert (queue.address, queue.password) == ("redis://127.0.0.1:4711", "secret-1")
    assert queue.stream == f"t2po:{{{RunFolder.read(folder).id}}}:groups"


def test_a_server_of_one_s_own_is_asked_with_the_environment_s_password(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, "queue.url=rediss://ada@queue.example:7000/3")
    queue = watched_run(folder, {"T2PO_QUEUE_PASSWORD": "s/ö"}).queue
    assert queue is not None
    assert (queue.address, queue.user, queue.password) == ("rediss://queue.example:7000", "ada", "s/ö")
    assert queue.database == "3"


def test_a_password_stands_in_no_command_line_and_no_file(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    (folder / "queue" / "server.json").write_text('{"port": 4711}')
    (folder / "queue" / "valkey.conf").write_text("requirepass secret-1\n")
    run = watched_run(folder)
    assert run.queue is not None
    program = lineup.exporter("/bin/true", run.name, run.queue, 9500)
    assert "secret-1" not in " ".join(program.command)
    assert program.environment["REDIS_PASSWORD"] == "secret-1"
    assert "secret-1" not in prometheus_file([run], {run.name: 9500}, 0, 0, [], 5.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"port": 9464, "name": "b"}, "both have metrics.port = 9464"), ({"port": 1, "name": "a"}, "named twice")],
)
def test_runs_that_cannot_be_told_apart_are_named(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(MonitoringError, match=message):
        check_together([some_run(tmp_path), some_run(tmp_path, **changes)])


def test_two_runs_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MonitoringError, match="have one name"):
        check_together([some_run(tmp_path / "x", port=1), some_run(tmp_path / "y", port=2)])


@pytest.mark.parametrize(
    ("arguments", "pieces"),
    [
        (["up", "no-such-run"], ["no such folder"]),
        (["up", "{silent}"], ["metrics.port = 0", "config.toml", "metrics.port=9464"]),
        (["up", "{run}", "--port", "99999"], ["--port 99999"]),
        (["up", "{run}", "--every", "0"], ["--every 0"]),
        (["up", "{run}", "--webhook", "nowhere"], ["--webhook nowhere", "http://"]),
        (["up", "{run}", "{run}"], ["named twice"]),
        (["up", "{run}", "{other}"], ["both have metrics.port"]),
        (["up", "{run}", "{third}"], ["several runs named", "--folder"]),
        (["up", "{empty}"], ["not a run folder"]),
        (["down"], ["no run named", "--folder"]),
        (["down", "{run}"], ["no monitoring was brought up here"]),
        (["up", "{run}", "--port", "{taken}"], ["port {taken} for prometheus", "--port"]),
    ],
)
def test_mistakes_are_one_line_with_a_remedy(
    arguments: list[str], pieces: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        (tmp_path / "empty").mkdir()
        places = {
            "run": str(run_folder(tmp_path)),
            "silent": str(run_folder(tmp_path, "metrics.port=0", name="silent")),
            "other": str(run_folder(tmp_path, name="other")),
            "third": str(run_folder(tmp_path, "metrics.port=9999", name="third")),
            "empty": str(tmp_path / "empty"),
            "taken": str(other.getsockname()[1]),
        }
        if "{taken}" in arguments and not programs.find_binary("prometheus"):
            pytest.skip("needs the Debian package prometheus")
        assert main(["monitoring", *(one.format(**places) for one in arguments)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("t2po: ")
    assert all(piece.format(**places) in lines[0] for piece in pieces), lines[0]


def test_a_missing_program_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(programs.BINARIES, "prometheus", (("no-such-program",), "apt-get install prometheus"))
    with pytest.raises(MonitoringError, match="prometheus is not installed: apt-get install prometheus"):
        up([some_run(tmp_path)], tmp_path / "m", Options(port=0))
    assert running(tmp_path / "m") == []


def test_a_record_of_processes_that_are_gone_ends_nobody(tmp_path: Path) -> None:
    """The pid lives, as another process: this one."""
    mine = ProcessId.of(os.getpid())
    assert mine is not None
    stale = {"pid": mine.pid, "start_ticks": mine.start_ticks - 1, "boot_id": mine.boot_id}
    record = {"runs": [], "programs": [{"name": "prometheus", "port": 1, "process": stale}]}
    (tmp_path / "state.json").write_text(json.dumps(record))
    assert down(tmp_path) == []
    assert running(tmp_path) == []


@pytest.mark.parametrize("text", ["", "{", '{"programs": [{"name": "prometheus"}]}', "[]"])
def test_a_record_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(MonitoringError, match="state.json: cannot be read.*delete the file"):
        running(tmp_path)


def test_ports_follow_one_another_or_are_free() -> None:
    fixed = lineup.Ports(9465)
    assert [fixed.take() for _ in range(3)] == [9465, 9466, 9467]
    free = lineup.Ports(0)
    assert len({free.take() for _ in range(5)}) == 5
    with pytest.raises(MonitoringError, match="too high"):
        last = lineup.Ports(65535)
        last.take()
        last.take()


def test_nothing_listens_beyond_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every program is told to listen on loopback, Alertmanager's port for others is closed."""
    monkeypatch.setattr(lineup, "find_binary", lambda name: f"/usr/bin/{name}")
    folder = run_folder(tmp_path)
    (folder / "queue" / "server.json").write_text('{"port": 4711}')
    (folder / "queue" / "valkey.conf").write_text("requirepass x\n")
    found = list(lineup.line_up([watched_run(folder)], tmp_path, Options(port=9465), lambda line: None))
    assert [one.name for one in found] == ["prometheus", "alertmanager", "grafana", "node-exporter", "redis-exporter-a"]
    assert [one.port for one in found] == [9465, 9466, 9467, 9468, 9469]
    for one in found:
        if one.name == "grafana":
            assert one.environment["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
        else:
            assert any(part == f"--web.listen-address=127.0.0.1:{one.port}" for part in one.command)
    assert "--cluster.listen-address=" in found[1].command
