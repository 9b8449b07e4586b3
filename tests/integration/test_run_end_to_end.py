"""Real runs: Ray, vLLM, DeepSpeed and Valkey together, killed at awkward moments and resumed.

They take minutes on two cores: starting vLLM and Ray is most of it, so each run shows several things.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from controller.audit import judge_file
from controller.update import PARTS
from controller.valkey import ValkeyServer
from tests.integration.quick_policy import make_quick_policy
from tests.integration.run_process import RunProcess, gone

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all runs of this module, with the policy that they start from."""
    folder = tmp_path_factory.mktemp("runs")
    make_quick_policy(folder / "policy")
    return folder


@pytest.fixture
def started() -> Iterator[list[RunProcess]]:
    processes: list[RunProcess] = []
    yield processes
    for process in processes:
        process.end()


def check_complete(run: RunProcess, steps: int, groups_per_step: int = 2, group_size: int = 3) -> None:
    """Every step once, every trajectory in exactly one committed step, nothing dropped without a reason."""
    rows = run.metrics()
    assert [row["step"] for row in rows] == list(range(1, steps + 1))
    report = judge_file(run.folder / "audit.jsonl")
    assert report.clean, report.problems
    assert report.committed_step == steps
    assert report.counts() == {"trained": steps * groups_per_step, "dropped": 0, "live": 0}
    verdicts = list(report.trajectories.values())
    assert verdicts.count("trained") == steps * groups_per_step * group_size
    for step in range(1, steps + 1):
        path = run.folder / "trajectories" / f"step-{step:08d}.jsonl.gz"
        with gzip.open(path, "rt", encoding="utf-8") as file:
            assert len([json.loads(line) for line in file]) == groups_per_step * group_size


def test_run_kill_and_resume_at_staleness_one(runs: Path, started: list[RunProcess]) -> None:
    """The queue's server dies and comes back; then everything is killed, nothing is left, and the run goes on."""
    run = RunProcess(
        runs, "asynchronous", "steps=5", "rollout.max_staleness=1", "checkpoint.every_steps=2",
        "calibration.cut_share=0.1", "calibration.resampled_share=0.1",
    )  # fmt: skip
    started.append(run)
    run.wait_for_step(1)
    run.part("valkey-server").kill()
    run.wait_for_step(3)
    family = run.family()
    before = {row["step"]: row for row in run.metrics()}
    run.kill()
    assert gone(family), "processes outlived the run that started them"
    run.resume()
    assert run.finish() == 0, run.output()
    check_complete(run, steps=5)
    rows = {row["step"]: row for row in run.metrics()}
    assert max(row["staleness_max"] for row in rows.values()) <= 1
    assert any(row["updates"] > 0 for row in rows.values()), "no step had a gradient: the test shows too little"
    # Step 3 was done, lost with the kill, and done again: on the same groups.
    for name in ("sampled_tokens", "reward", "phi", "resamples", "accepted_turns", "tti_epsilon", "tds_eta"):
        assert rows[3][name] == pytest.approx(before[3][name], nan_ok=True), name
    assert rows[1]["tds_eta"] == rows[2]["tds_eta"] != rows[3]["tds_eta"], "moved by step 1, as far as it can know"
    labels = {path.stem.split("-")[-1] for path in (run.folder / "evaluations").glob("*.json")}
    assert labels == {"before", "after"}
    for name in ("config.toml", "versions.json", "panels.json", "run.log"):
        assert (run.folder / name).is_file(), name
    assert (run.folder / "checkpoints" / "step-00000005" / "policy" / "model.safetensors").is_file()
    assert abs(rows[1]["mismatch_kl_fresh"]) < 1e-4, "engine and learner in bfloat16, before any update"
    for row in rows.values():
        if (fresh := row.get("mismatch_kl_fresh")) is not None:
            assert abs(fresh) < 1e-4
        busy = [row[f"busy_{part}"] for part in (*PARTS, "idle")]
        assert all(0.0 <= share <= 1.0 for share in busy)


def test_run_on_policy_survives_its_learner_and_ctrl_c(runs: Path, started: list[RunProcess]) -> None:
    """A run comes back from a dead learner by itself, from where it was saved; Ctrl-C ends it cleanly; it goes on."""
    run = RunProcess(
        runs, "on-policy", "steps=4", "rollout.max_staleness=0", "checkpoint.every_steps=4",
        "inference.dtype=float32", "learner.dtype=float32", "tds.enabled=false",
    )  # fmt: skip
    started.append(run)
    run.wait_for_step(1)
    run.part("ray::LearnerActor").kill()
    run.wait_for_text("the run begins anew: ")
    assert "learner" in run.output().split("the run begins anew: ")[1].splitlines()[0]
    run.wait_for_step(2)
    assert run.metrics()[-1]["restarts_learner"] == 1
    family = run.family()
    run.process.terminate()  # SIGTERM: as a cluster stops it
    assert run.finish() == 130, run.output()
    assert gone(family), "processes outlived the run that started them"
    assert "t2po train --resume" in run.output()
    assert "*** SIGTERM" not in run.output(), "Ray's own handler printed a stack trace"
    assert len(run.metrics()) < 4, "it was stopped too late to show anything"
    assert len(list((run.folder / "checkpoints").glob("step-*"))) == 1, "what stops it saves the steps that are done"
    run.resume()
    assert run.finish() == 0, run.output()
    check_complete(run, steps=4)
    for row in run.metrics():
        assert row["staleness_max"] == 0
        assert abs(row["mismatch_kl"]) < 1e-6
        assert row["resamples"] == 0


def test_run_survives_the_death_of_each_part(
    runs: Path, started: list[RunProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Environment actor, one of two routers and engine are replaced; a foreign Redis that goes away ends the run.

    Its password comes in the URL; the run folder does not keep it, so the resume takes it from the environment.
    """
    with ValkeyServer(tmp_path / "server") as server:
        run = RunProcess(
            runs, "deaths", "steps=8", "env.max_turns=12", "checkpoint.every_steps=5", "rollout.max_staleness=0",
            "rollout.num_routers=2", f"queue.url={server.url}", "queue.timeout_s=5",
        )  # fmt: skip
        started.append(run)
        for step, part in enumerate(("ray::EnvActor", "ray::RouterActor", "VLLM::EngineCore"), start=1):
            run.wait_for_step(2 * step - 1)
            run.part(part).kill()
        run.wait_for_step(6)
        restarts = run.metrics()[-1]
        os.kill(server.pid, signal.SIGKILL)
        assert run.finish() == 2
        assert "127.0.0.1" in run.output().splitlines()[-1], run.output()
        server.ensure_alive()
        password = str(urlsplit(server.url).password)
        kept = (run.folder / "config.toml").read_text() + (run.folder / "run.log").read_text() + run.output()
        assert password not in kept
        run.resume()
        assert run.finish() == 2 and "set T2PO_QUEUE_PASSWORD" in run.output().splitlines()[-1], run.output()
        monkeypatch.setenv("T2PO_QUEUE_PASSWORD", password)
        run.resume()
        assert run.finish() == 0, run.output()
    check_complete(run, steps=8)
    assert restarts["restarts_env-0"] >= 1
    assert restarts["restarts_inference-0"] >= 1
    assert restarts.get("restarts_router-0", 0) + restarts.get("restarts_router-1", 0) == 1
    for row in run.metrics():
        assert math.isfinite(row["approx_kl"])
        assert abs(row["mismatch_kl"]) < 1e-4, "engine and learner in bfloat16, before and after updates"
