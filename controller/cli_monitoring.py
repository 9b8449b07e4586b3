"""The commands `t2po monitoring up|down|status`.

Owns: their arguments and what they print. Called by `controller.cli`. Must not know: how monitoring is brought up.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add_monitoring_commands(commands: Any) -> None:
    """Adds the commands to argparse's list of subcommands."""
    monitoring = commands.add_parser("monitoring", help="Prometheus, Alertmanager and Grafana beside a run")
    actions = monitoring.add_subparsers(title="actions", metavar="ACTION", required=True)
    up = actions.add_parser("up", help="start what is installed, on loopback, watching these runs")
    up.add_argument("folders", nargs="+", metavar="RUN", help="the run's folder, or its name below runs/")
    up.add_argument(
        "--port", type=int, default=9465, help="of Prometheus, the others on the next ones; 0: free ones (default 9465)"
    )
    up.add_argument("--every", type=float, default=5.0, metavar="S", help="seconds between two scrapes (default 5)")
    up.add_argument("--webhook", default="", metavar="URL", help="where alerts are posted to; default: only shown")
    up.set_defaults(run=_up)
    down = actions.add_parser("down", help="end exactly what `up` has started, and wait until it is gone")
    status = actions.add_parser("status", help="what runs, whom it reaches, which alerts fire")
    for action, run in ((down, _down), (status, _status)):
        action.add_argument("folders", nargs="*", metavar="RUN", help="the run that it was brought up for")
        action.set_defaults(run=run)
    for action in (up, down, status):
        action.add_argument(
            "--folder", type=Path, metavar="FOLDER", help="data, configuration and logs; default: monitoring/ in RUN"
        )


def _up(options: argparse.Namespace) -> int:
    from controller.monitoring.lineup import Options
    from controller.monitoring.stack import up
    from controller.monitoring.watched_runs import MonitoringError, check_together, watched_run
    from controller.policy_folder import find_run

    if not 0 <= options.port <= 65535:
        raise MonitoringError(f"--port {options.port}: from 0 to 65535")
    if not 0.1 <= options.every <= 3600:
        raise MonitoringError(f"--every {options.every:g}: seconds, from 0.1 to 3600")
    if options.webhook and not options.webhook.startswith(("http://", "https://")):
        raise MonitoringError(f"--webhook {options.webhook}: a URL that begins with http:// or https://")
    runs = [watched_run(find_run(name)) for name in options.folders]
    check_together(runs)
    folder = _folder(options)
    chosen = Options(port=options.port, every_s=options.every, webhook=options.webhook)
    started = up(runs, folder, chosen, say=lambda line: print(line, flush=True))
    for one in started:
        print(f"{one.name:<14} {one.url}")
    if any(one.name == "alertmanager" for one in started) and not options.webhook:
        print("alerts are shown there and sent nowhere: --webhook URL")
    _say_targets(runs)
    print(f"it goes on until: t2po monitoring down --folder {folder}")
    return 0


def _say_targets(runs: Any) -> None:
    from controller.monitoring.programs import get

    for run in runs:
        if get(run.port, "/metrics", timeout_s=2.0) is None:
            print(f"{run.name}: nothing answers on port {run.port} now; it is scraped as soon as it trains")


def _down(options: argparse.Namespace) -> int:
    from controller.monitoring.stack import down

    ended = down(_folder(options))
    print(f"ended: {', '.join(one.name for one in ended)}" if ended else "nothing of it was running any more")
    return 0


def _status(options: argparse.Namespace) -> int:
    from controller.monitoring.programs import get
    from controller.monitoring.stack import running

    folder = _folder(options)
    programs = running(folder)
    if not programs:
        print(f"{folder}: nothing was brought up here")
        return 0
    for one in programs:
        print(f"{one.name:<14} {one.url if one.process.alive() else 'is gone'}")
    port = programs[0].port
    targets = json.loads(get(port, "/api/v1/targets?state=active", timeout_s=5.0) or b"{}")
    for target in targets.get("data", {}).get("activeTargets", []):
        labels = target["labels"]
        name = " ".join(filter(None, (labels.get("run"), labels["job"], labels.get("part"), labels["instance"])))
        print(f"{target['health']:<8} {name} {target['lastError']}".rstrip())
    alerts = json.loads(get(port, "/api/v1/alerts", timeout_s=5.0) or b"{}")
    for alert in alerts.get("data", {}).get("alerts", []):
        if alert["state"] == "firing":
            print(f"firing   {alert['labels']['alertname']}: {alert['annotations']['summary']}")
    return 0


def _folder(options: argparse.Namespace) -> Path:
    """--folder; else below the one run that is named."""
    from controller.monitoring.stack import FOLDER
    from controller.monitoring.watched_runs import MonitoringError
    from controller.policy_folder import find_run

    if options.folder:
        return Path(options.folder).expanduser().absolute()
    if len(options.folders) != 1:
        what = "several runs" if options.folders else "no run"
        raise MonitoringError(f"{what} named: say with --folder where data, configuration and logs lie")
    return (find_run(options.folders[0]) / FOLDER).absolute()
