"""Where a run's parts serve metrics of their own: a file in the run's folder that Prometheus reads again as it changes.

Owns: the file's place and format (Prometheus' `file_sd_configs`). Written by `controller.cluster` whenever an engine
has come up; read by Prometheus, which `controller.monitoring` points to it. Must not know: what is measured, how a part
is started.

A port is not known before: Ray chooses its own, and a run that is scaled has other engines than its configuration says.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from controller.durable_files import RunFolderError, encode_json, write_whole

logger = logging.getLogger(__name__)

TARGETS = "metric-targets.json"
LOOPBACK = "127.0.0.1"


def write_targets(run_folder: Path, engines: Mapping[str, int], ray: Iterable[str]) -> None:
    """`engines`: name -> port, 0 for one that serves none; `ray`: "host:port" of each Ray node. A file that cannot be
    written is logged: a run does not end for its metrics."""
    served = {name: f"{LOOPBACK}:{port}" for name, port in sorted(engines.items()) if port}
    targets = [_target(run_folder, "vllm", address, part=name) for name, address in served.items()]
    targets += [_target(run_folder, "ray", address) for address in sorted(ray)]
    try:
        write_whole(run_folder / TARGETS, encode_json(targets) + b"\n")
    except RunFolderError as error:
        logger.warning("%s", error)


def _target(run_folder: Path, job: str, address: str, **labels: str) -> dict[str, Any]:
    return {"targets": [address], "labels": {"job": job, "run": run_folder.name, **labels}}
