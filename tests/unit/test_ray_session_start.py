"""A Ray that does not come up is said in one line, with a remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray

from controller.ray_session import RaySession, RayStartError


def test_ray_session_start_that_fails_names_cause_and_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: Any) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", refuse)
    session = RaySession(tmp_path, object_store_bytes=100 * 2**20)
    with pytest.raises(RayStartError, match="Ray did not start: .*timed out during startup.*: free some"):
        session.start()
    session.stop()
