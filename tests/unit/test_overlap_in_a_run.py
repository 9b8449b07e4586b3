"""A run's metrics hold the overlap gauge and what its processes use, in every step; every remote part a stand-in."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_train_loop import Scene, cluster_of

HEADROOM = 1 + 1e-6


def test_every_step_has_the_gauge_and_the_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(tmp_path, monkeypatch)
    run = scene.first_life(steps=3, checkpoint={"every_steps": 1})
    cluster = cluster_of(run)
    cluster.train_s = 0.02
    began = time.monotonic()

    async def always_busy() -> list[Any]:
        """An engine that never rests: what lies before and behind a step is not the step's."""
        return [("generation", [(began, time.monotonic() + 60)])]

    cluster.busy_spans = always_busy  # type: ignore[method-assign]
    scene.conduct(run)
    rows = scene.rows()
    assert len(rows) == 3
    for row in rows:
        assert row["t_generate_s"] == pytest.approx(row["step_s"])
        assert row["overlap_bound_s"] == pytest.approx(row["step_s"])
        assert 0 < row["t_train_s"] <= row["step_s"] * HEADROOM
        assert row["overlap_share"] == pytest.approx(1)
        assert row["memory_mb_controller"] > row["private_mb_controller"] > 0
        assert row["fds_controller"] > 0 and row["threads_controller"] > 0
    assert all(row["t_sync_s"] > 0 for row in rows)


def test_lockstep_shows_in_the_gauge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No engine says that it was busy: what is left is the learner and the sync, and the share is theirs."""
    scene = Scene(tmp_path, monkeypatch)
    run = scene.first_life(steps=2, rollout={"groups_per_step": 2, "group_size": 2, "max_staleness": 0})
    cluster_of(run).train_s = cluster_of(run).play_s = 0.1
    scene.conduct(run)
    for row in scene.rows():
        assert row["t_generate_s"] == 0
        assert row["t_train_s"] <= row["overlap_bound_s"] <= row["t_train_s"] + row["t_sync_s"] + 1e-6
        assert row["overlap_share"] == pytest.approx(row["overlap_bound_s"] / row["step_s"])
        assert row["overlap_share"] < 1
