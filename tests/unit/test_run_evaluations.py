"""When a run's policy is evaluated."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from controller.config import EvalSettings
from controller.run_evaluations import RunEvaluations


def evaluations(folder: Path, **changes: Any) -> RunEvaluations:
    config: Any = SimpleNamespace(eval=EvalSettings(**changes), steps=10)
    panel, absent = SimpleNamespace(name="unseen"), SimpleNamespace()
    return RunEvaluations(
        config, "run", panel, folder, absent, absent, rate=absent, say=absent, note=absent  # type: ignore[arg-type]
    )  # fmt: skip


def test_evaluation_before_the_first_step_is_due_once_and_only_if_asked_for(tmp_path: Path) -> None:
    assert evaluations(tmp_path).first_is_due
    assert not evaluations(tmp_path, before=False).first_is_due
    (tmp_path / "unseen-v000000-before.json").write_text("{}")
    assert not evaluations(tmp_path).first_is_due


@pytest.mark.parametrize(("done", "due"), [(0, True), (3, True), (4, False), (9, True), (10, False)])
def test_evaluation_is_due_every_so_many_steps_but_the_last(tmp_path: Path, done: int, due: bool) -> None:
    assert evaluations(tmp_path, every_steps=3).is_due(done) is due
