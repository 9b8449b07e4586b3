"""The pass over the vocabulary rounds the same in every process: its sums have an order that is not the compiler's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import hashlib
import numpy as np
from actors.token_distribution_host import measure_rows
sums, random = hashlib.sha256(), np.random.default_rng(0)
for vocabulary in (1, 31, 33, 1000, 1025, 5003):
    out = np.zeros((3, 8))
    measure_rows(random.normal(0, 3, (8, vocabulary)).astype(np.float32), np.full(8, 20), out)
    sums.update(out.tobytes())
print(sums.hexdigest())
"""


def test_token_distribution_is_bitwise_the_same_freshly_compiled_and_from_the_cache(tmp_path: Path) -> None:
    def run() -> str:
        environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
        return subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True, timeout=300
        ).stdout

    compiled = run()
    assert list(tmp_path.rglob("*.nbc")), "nothing was cached: this compares one way with itself"
    assert compiled == run()
