"""Writes the dashboards into deploy/monitoring/dashboards: `python -m controller.monitoring.write_dashboards`.

Owns: the files' names. Called by hand after a change of a dashboard; a test says when it was forgotten. Must not know:
what is shown.
"""

from __future__ import annotations

from pathlib import Path

from controller.durable_files import write_whole
from controller.monitoring.dashboards import DASHBOARDS, as_json
from controller.monitoring.panels import Dashboard

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "monitoring" / "dashboards"


def file_of(dashboard: Dashboard) -> Path:
    return FOLDER / f"{dashboard.uid.removeprefix('t2po-')}.json"


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for dashboard in DASHBOARDS:
        write_whole(file_of(dashboard), as_json(dashboard).encode())
        print(file_of(dashboard))


if __name__ == "__main__":
    main()
