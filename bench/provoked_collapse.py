"""A collapse provoked in a real run, watched by a real Prometheus and Alertmanager, and undone by the run itself.

    python -m bench.provoked_collapse --folder FOLDER --model POLICY [--recipe search] [--steps 36] [key=value ...]

A good policy is trained on with a learning rate that is far too high and told to go back when it collapses. Beside it
runs `t2po monitoring up`, whose Alertmanager posts to a webhook here, as does the run itself. Prints success before,
in and after the collapse, what each webhook was told and when, and a JSON line; exit status 1 when the collapse was
not told of by both, was not rolled back, or success did not come back to `--share` of what it was before.

Owns: the run's knobs, the webhook, the verdict. Must not know: what a collapse is (`controller.collapse`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import mean
from typing import Any

from controller.monitoring.lineup import Options
from controller.monitoring.stack import down, up
from controller.monitoring.watched_runs import watched_run
from controller.valkey_process import free_port

KNOBS = (
    "learner.lr=2e-3", "checkpoint.every_steps=2", "checkpoint.keep_last=4", "eval.num_tasks=500",
    'collapse.on_collapse=["notify","rollback"]', "collapse.rollback_lr_factor=0.1",
)  # fmt: skip
ALERT = "T2poCollapsed"
RUN_LIMIT_S = 7200.0


class Ear:
    """A webhook that keeps what it is told, with the time since `begin`."""

    def __init__(self) -> None:
        self.heard: list[tuple[float, dict[str, Any]]] = []
        heard, began = self.heard, time.monotonic()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                heard.append((round(time.monotonic() - began, 1), body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def alerts(self) -> list[tuple[float, str, str]]:
        """(when, name, firing or resolved) of every alert that Alertmanager posted."""
        return [
            (when, alert["labels"]["alertname"], alert["status"])
            for when, body in self.heard for alert in body.get("alerts", [])
        ]  # fmt: skip

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def play(folder: Path, command: list[str], ear: Ear) -> int:
    """The run with its monitoring, from start to end; its exit status."""
    run = folder / "provoked"
    with (folder / "provoked.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + RUN_LIMIT_S
        monitoring = folder / "monitoring"
        try:
            while not (run / "metric-targets.json").exists() and "everything is up" not in _text(folder):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"the run did not come up: {_text(folder)[-2000:]}")
                time.sleep(0.5)
            up([watched_run(run)], monitoring, Options(port=0, webhook=ear.url, wait_s=1.0), print)
            return process.wait(RUN_LIMIT_S)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(120)
            down(monitoring)


def _text(folder: Path) -> str:
    return (folder / "provoked.log").read_text(errors="replace")


def success(path: Path) -> list[float]:
    """Of every step in a metrics file."""
    return [float(json.loads(line)["success"]) for line in path.read_text().splitlines()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("changes", nargs="*", metavar="key=value")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--recipe", default="search")
    parser.add_argument("--steps", type=int, default=36)
    parser.add_argument("--share", type=float, default=0.9, help="of the success before that has to come back")
    options = parser.parse_intermixed_args()
    folder: Path = options.folder.resolve()
    folder.mkdir(parents=True)
    ear = Ear()
    command = [
        sys.executable, "-m", "controller.cli", "train", options.recipe, "name=provoked", f"runs_dir={folder}",
        f"model={options.model.resolve()}", f"steps={options.steps}", f"metrics.port={free_port()}",
        f"collapse.webhook={ear.url}", *KNOBS, *options.changes,
    ]  # fmt: skip
    try:
        ended = play(folder, command, ear)
    finally:
        ear.close()
    run = folder / "provoked"
    given_up = sorted(run.glob("metrics.before-rollback-*.jsonl"))
    ill = success(given_up[0]) if given_up else []
    evaluated = {path.stem.split("-")[-1]: json.loads(path.read_text())["success"]
                 for path in sorted((run / "evaluations").glob("*.json"))}  # fmt: skip
    alerts, own = ear.alerts(), [(when, body) for when, body in ear.heard if "alerts" not in body]
    good = {
        "the run was finished": ended == 0,
        "it was rolled back": bool(given_up),
        "the run's webhook was told": bool(own),
        f"{ALERT} reached Alertmanager's webhook": any(alert[1:] == (ALERT, "firing") for alert in alerts),
        "success came back": evaluated.get("after", 0.0) >= options.share * evaluated.get("before", 1.0),
    }
    print(f"success before {evaluated.get('before')}, after {evaluated.get('after')}")
    print("steps given up:", " ".join(f"{one:.0%}" for one in ill))
    print(f"training after the rollback: {mean(success(run / 'metrics.jsonl')):.0%}")
    print("alerts:", "; ".join(f"{when:.0f} s {name} {status}" for when, name, status in alerts))
    print("told by the run:", "; ".join(f"{when:.0f} s {json.dumps(body)[:300]}" for when, body in own))
    print(*(f"{'yes' if met else 'NO '} {what}" for what, met in good.items()), sep="\n")
    print(json.dumps({"good": all(good.values()), "evaluated": evaluated, "given_up": ill, "alerts": alerts}))
    return 0 if all(good.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
