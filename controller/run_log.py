"""The log of a run: one file in its folder, in which every process of the controller writes alike.

Owns: `log_to`. Called by `controller.train` and `controller.start_guard`. Must not know: who logs what.
"""

from __future__ import annotations

import logging
from pathlib import Path

LOG_FILE = "run.log"
"""In the run folder."""


def log_to(path: Path) -> None:
    """This process logs there from now on, and nowhere else."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.raiseExceptions = False  # a full disk must not print a trace for every line: what ends the run is said once
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
