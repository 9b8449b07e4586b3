"""A Ray that does not come up is said in one line, with a remedy."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# In a process of its own: a start sets up Ray's authentication, which other tests' sessions must not meet.
REFUSED = """
import ray, sys
from pathlib import Path
from controller.ray_session import RaySession, RayStartError

def refuse(**options):
    raise Exception("The current node timed out during startup.")

ray.init = refuse
session = RaySession(Path(sys.argv[1]), object_store_bytes=100 * 2**20)
try:
    session.start()
except RayStartError as error:
    print(error)
session.stop()
"""


def test_ray_session_start_that_fails_names_cause_and_remedy(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", REFUSED, str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert re.search("Ray did not start: .*timed out during startup.*: free some", done.stdout), done.stdout
