"""`t2po health` and docs/metrics.md: what they print, of a run folder and of the table of metrics."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from controller.cli import main
from controller.collapse.settings import CollapseSettings
from controller.config import RunConfig
from controller.metric_definitions import _FORMULAS, METRICS
from controller.metrics import MetricsLog, StepMetrics
from controller.metrics_page import as_markdown
from controller.run_folder import RunFolder
from controller.run_health import changes, health_json, health_lines, replay

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


def values(ill: bool) -> dict[str, float]:
    return {
        "success": 0.5 if ill else 0.6,
        "trajectories": 64.0,
        "approx_kl": 0.05 if ill else 0.002,
        "invalid": 0.5 if ill else 0.08,
        "step_s": 10.0,
    }


def a_run(folder: Path, num_steps: int, ill_from: int, total: int = 40) -> Path:
    with RunFolder.create(RunConfig(runs_dir=str(folder), name="one", steps=total), "alfworld") as run:
        log = MetricsLog(run.metrics)
        for step in range(1, num_steps + 1):
            log.write(StepMetrics(step=step, values=values(step >= ill_from), time=1000.0 + 10 * step))
        log.close()
        return run.path


def test_changes_of_state_stand_with_step_and_cause(tmp_path: Path) -> None:
    path = a_run(tmp_path, 30, ill_from=20)
    lines = health_lines(path, now=1305.0)
    assert lines[0] == "step 1: healthy"
    assert any(line.startswith("step 22: warning: ") and "nats" in line for line in lines)
    assert any(": collapsed: " in line for line in lines[1:-1])
    assert lines[-1].startswith("now, after step 30 (5 s ago), since step 2")
    assert "collapsed: " in lines[-1]


def test_a_healthy_run_is_two_lines(tmp_path: Path) -> None:
    path = a_run(tmp_path, 30, ill_from=99)
    assert health_lines(path, now=1305.0) == ["step 1: healthy", "now, after step 30 (5 s ago): healthy"]


def test_a_run_that_does_not_come_on_is_said_to_stand(tmp_path: Path) -> None:
    assert "stalled, or was stopped" in health_lines(a_run(tmp_path, 12, ill_from=99), now=5000.0)[-1]
    done = a_run(tmp_path / "done", 12, ill_from=99, total=12)
    assert health_lines(done, now=5000.0)[-1].endswith("healthy")


def test_json_has_the_same_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = a_run(tmp_path, 30, ill_from=20)
    assert main(["health", str(path), "--json"]) == 0
    seen = json.loads(capsys.readouterr().out)
    assert [change["level"] for change in seen["changes"]] == ["healthy", "warning", "collapsed"]
    assert seen["now"]["level"] == "collapsed" and seen["now"]["detectors"]["kl_spike"] == "warning"
    assert main(["health", str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "step 1: healthy"


def test_a_run_without_steps_and_one_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = a_run(tmp_path, 0, ill_from=1)
    assert main(["health", str(path)]) == 0
    assert "no step is finished yet" in capsys.readouterr().out
    assert health_json(path)["now"] is None
    assert main(["health", str(tmp_path / "nothing")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_the_runs_own_settings_are_used(tmp_path: Path) -> None:
    steps = [StepMetrics(step=step, values=values(step >= 20), time=0.0) for step in range(1, 31)]
    strict = replay(steps, CollapseSettings(steps_to_enter=1))
    calm = replay(steps, CollapseSettings(steps_to_enter=9))
    assert [health.step for health in changes(strict)][1] < [health.step for health in changes(calm)][1]


def test_the_committed_page_of_metrics_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == as_markdown(), "run: t2po metrics > docs/metrics.md"


def test_every_signal_has_a_formula_and_every_metric_a_row() -> None:
    assert set(_FORMULAS) <= set(METRICS)
    signals = (
        "entropy", "uncertainty_p50", "phi_p90", "marginal_change", "interventions", "resamples", "repeated_turns",
        "think_tokens", "format_invalid", "success", "reward_std", "groups_without_signal", "reference_kl", "approx_kl",
        "mismatch_kl", "grad_norm", "weight_max", "weight_ess", "staleness", "queue_depth", "wait_s", "weights_s",
        "busy_learner", "busy_idle",
    )  # fmt: skip
    for name in signals:
        assert METRICS[name].formula, name
    page = as_markdown()
    for name in METRICS:
        assert f"| `{name}` |" in page
