"""`make help` shows every entry point, also those that share a line of the Makefile."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_entry_point_is_listed() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    phony = re.findall(r"^\.PHONY:(.*)$", text, re.MULTILINE)
    targets = [target for line in phony for target in line.split()]
    command = ["make", "--no-print-directory", "help"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True).stdout
    rows = re.findall(r"^  make (\S+) +(\S.*)$", shown, re.MULTILINE)
    listed = [target for names, _ in rows for target in names.split("|")]
    assert sorted(listed) == sorted(targets), shown
    assert len(targets) > 10
