"""Would the alerts have fired on recorded runs? `python -m bench.alerts RUN...` (folders with a metrics.jsonl).

Owns: the replay. The runs' numbers are written into a Prometheus with their own times, each held until the next step,
and the alerts of deploy/monitoring are asked for over that time. Alerts on what a metrics file does not hold (whether
the endpoint answers, the disk, the host) are left out. Must not know: what makes a run healthy.

Prints one line for each alert and run; nothing for runs on which none fired. Exit status 1 when one did.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import re
import subprocess
import tempfile
import urllib.parse
from pathlib import Path
from typing import Any

import yaml

from controller.metrics import read_metrics
from controller.monitoring.lineup import RULES
from controller.monitoring.programs import BINARIES, Program, end, find_binary, get, start, wait_ready
from controller.valkey_process import free_port

HELD_S = 10.0
"""Between two samples: Prometheus takes a series for gone after five minutes without one."""
LAST_S = 30.0
STEP_S = 15.0
BY_THE_CLOCK = ("T2poNothingScraped", "T2poHeartbeatAbsent", "T2poLoopStandsStill", "T2poStepOverdue")
BOUNDS = {"t2po_staleness_bound": 1.0, "t2po_queue_bound": 256.0}
"""What the recipes have; a metrics file does not hold them."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    runs: list[Path] = parser.parse_args().runs
    binary = find_binary("prometheus")
    if binary is None:
        parser.error(f"prometheus is not installed: {BINARIES['prometheus'][1]}")
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]]
    rules = [rule for group in groups for rule in group["rules"]]
    recorded = {rule["record"]: rule["expr"] for rule in rules if "record" in rule}
    alerts = [rule for rule in rules if "alert" in rule and rule["alert"] not in BY_THE_CLOCK]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first, last = _load(runs, set(re.findall(r"t2po_[a-z0-9_]+", json.dumps(rules))), folder)
        (folder / "prometheus.yml").write_text("global: {}\n")
        port = free_port()
        command = [binary, f"--config.file={folder / 'prometheus.yml'}", "--log.level=error",
                   f"--storage.tsdb.path={folder / 'data'}", "--storage.tsdb.retention.time=100y",
                   f"--web.listen-address=127.0.0.1:{port}"]  # fmt: skip
        program = Program("prometheus", command, port, "/-/ready")
        process = start(program, folder / "log")
        try:
            wait_ready(program, process, folder / "log", timeout_s=60.0)
            lines = [line for alert in alerts for line in _fired(alert, recorded, port, first, last)]
        finally:
            end(process)
    print(*lines, sep="\n", end="\n" if lines else "")
    print(f"{len(runs)} runs, {len(alerts)} alerts: {len(lines)} fired")
    return int(bool(lines))


def _load(runs: list[Path], names: set[str], folder: Path) -> tuple[float, float]:
    """The runs' numbers as blocks of a Prometheus; the time that they span."""
    rows: dict[str, list[tuple[str, float, float]]] = {}
    for number, run in enumerate(runs):
        steps = read_metrics(run / "metrics.jsonl")
        ends = [*(step.time for step in steps[1:]), steps[-1].time + LAST_S]
        for step, until in zip(steps, ends, strict=True):
            values = {f"t2po_{name}": value for name, value in step.values.items()} | {"t2po_step": float(step.step)}
            for name, value in {**values, **BOUNDS}.items():
                if name in names and math.isfinite(value):
                    count = max(1, math.ceil((until - step.time) / HELD_S))
                    rows.setdefault(name, []).extend(
                        (f"{number} {run.name}", step.time + HELD_S * held, value) for held in range(count)
                    )
    lines = []
    for name, samples in sorted(rows.items()):
        lines.append(f"# TYPE {name} gauge")
        lines += [f'{name}{{job="t2po",run="{run}"}} {value} {at:.0f}' for run, at, value in sorted(samples)]
    text = folder / "metrics.txt"
    text.write_text("\n".join([*lines, "# EOF"]) + "\n", encoding="utf-8")
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(text), str(folder / "data")]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    times = [at for samples in rows.values() for _, at, _ in samples]
    return min(times), max(times)


def _fired(alert: dict[str, Any], recorded: dict[str, str], port: int, first: float, last: float) -> list[str]:
    """One line for each run on which the alert held for as long as it must."""
    expr = alert["expr"]
    for name, rule in recorded.items():
        if f"{name} offset" not in expr:
            expr = expr.replace(name, f"({rule})")
    pending = alert.get("for", "0s")
    needed = float(pending[:-1]) * {"s": 1, "m": 60, "h": 3600}[pending[-1]]
    held: dict[str, list[float]] = {}
    begin = first
    while begin < last:
        until = min(begin + 6 * 3600, last)
        query = urllib.parse.urlencode({"query": expr, "start": begin, "end": until, "step": STEP_S})
        answer = get(port, f"/api/v1/query_range?{query}", timeout_s=120.0)
        if answer is None:
            raise SystemExit(f"{alert['alert']}: Prometheus does not answer {expr}")
        for series in json.loads(answer)["data"]["result"]:
            held.setdefault(series["metric"].get("run", ""), []).extend(float(at) for at, _ in series["values"])
        begin = until + STEP_S
    return [
        f"{alert['alert']}: run {run}, {longest:g} s"
        for run, times in sorted(held.items())
        if (longest := _longest(sorted(times))) >= needed
    ]


def _longest(times: list[float]) -> float:
    best = stretch = 0.0
    for one, other in itertools.pairwise(times):
        stretch = stretch + other - one if other - one <= STEP_S + 1 else 0.0
        best = max(best, stretch)
    return best


if __name__ == "__main__":
    raise SystemExit(main())
