"""`t2po report --serve` on loopback: made again when files change, ended by Ctrl-C, for this machine alone."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from controller.cli import main
from controller.metrics import MetricsLog
from controller.report.collection import collect
from controller.report.server import ReportServer
from tests.report_runs import add_step, make_run

ROOT = Path(__file__).resolve().parents[2]


def test_data_is_sent_when_it_has_changed_and_only_then(tmp_path: Path) -> None:
    run = make_run(tmp_path, num_steps=2)
    made = 0

    def collected() -> dict[str, object]:
        nonlocal made
        made += 1
        return collect([run])

    async def ask() -> None:
        runner = web.AppRunner(ReportServer([run], "live", collected).application())
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
                answers = await asyncio.gather(*(session.get(f"{url}/data.json") for _ in range(4)))
                tags = {answer.headers["ETag"] for answer in answers}
                assert len(tags) == 1 and made == 1
                (tag,) = tags
                async with session.get(f"{url}/data.json", headers={"If-None-Match": tag}) as answer:
                    assert answer.status == 304 and await answer.read() == b""
                metrics = MetricsLog(run / "metrics.jsonl")
                add_step(run, 3, metrics)
                metrics.close()
                async with session.get(f"{url}/data.json", headers={"If-None-Match": tag}) as answer:
                    assert answer.status == 200 and answer.headers["ETag"] != tag
                    tree = await answer.json()
                assert tree["runs"][0]["done"] == 3 and f'"{tree["tag"]}"' == answer.headers["ETag"]
                async with session.get(url) as answer:
                    page = await answer.text()
                assert 'data-live="yes"' in page and tree["tag"] in page and made == 2
        finally:
            await runner.cleanup()

    asyncio.run(ask())


@pytest.mark.parametrize(("host", "status"), [("127.0.0.1", 200), ("localhost", 200), ("elsewhere.example", 403)])
def test_only_requests_for_this_machine_are_answered(tmp_path: Path, host: str, status: int) -> None:
    """Otherwise a web page could point a name of its own at loopback and read the runs."""
    run = make_run(tmp_path, num_steps=1)

    async def ask() -> None:
        runner = web.AppRunner(ReportServer([run], "live", partial(collect, [run])).application())
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
                port = runner.addresses[0][1]
                async with session.get(f"http://127.0.0.1:{port}/", headers={"Host": f"{host}:{port}"}) as answer:
                    assert answer.status == status
        finally:
            await runner.cleanup()

    asyncio.run(ask())


def test_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path, num_steps=1)

    async def ask() -> None:
        runner = web.AppRunner(ReportServer([run], "live", partial(collect, [run])).application())
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            run.rename(tmp_path / "moved")
            url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
            async with aiohttp.request("GET", url, timeout=aiohttp.ClientTimeout(total=30)) as answer:
                assert answer.status == 503 and "no such run folder" in await answer.text()
        finally:
            await runner.cleanup()

    asyncio.run(ask())


def test_port_that_is_taken_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path, num_steps=1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["report", str(run), "--serve", "--port", str(port)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(rf"--port {port}: cannot serve on 127\.0\.0\.1:{port}.*name another one", line)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_server_is_ended_by_a_signal_with_exit_0(tmp_path: Path, number: signal.Signals) -> None:
    run = make_run(tmp_path, num_steps=1)
    process = subprocess.Popen(
        [sys.executable, "-m", "controller.cli", "report", str(run), "--serve"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()  # ends with the process at the latest
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/ \(Ctrl-C ends it\)\n", line)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0 and errors == ""
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(timeout=20)
