"""A training in the local cluster: started as a process of its own, recorded, asked for other numbers of actors.

Owns: `submit`, `resize`, and the order in which raylets and actors come and go. Called by `controller.cli_cluster`.
Must not know: how a run trains, how raylets are started.

More: raylets first, then the run, which has places for its actors then. Fewer: the run first, then the raylets that it
left.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from controller.cluster_settings import LOCAL
from controller.config import load_config
from controller.control import ControlError
from controller.detached_process import last_line, start
from controller.local_cluster.resizing import grow, retire, shrink
from controller.local_cluster.state import (
    FOLDER_VARIABLE,
    ClusterError,
    ClusterState,
    Size,
    Submitted,
    live_state,
    write_state,
)
from controller.preflight import check_run
from controller.run_folder import RunFolder, is_running
from controller.scale_command import scale as scale_run

Say = Callable[[str], None]

ROOT = Path(__file__).resolve().parents[2]
LOG = "submitted.log"
SETTLED_AFTER_S = 5.0
"""A run that is wrong from the start has said so by then."""
KNOBS = {"envs": "rollout.num_env_actors", "inference": "inference.num_servers", "learners": "learner.num_ranks"}


def submit(folder: Path, recipe: str, changes: Sequence[str]) -> Submitted:
    """Starts `t2po train` in the cluster. ConfigError for a wrong recipe, ClusterError when another run goes on,
    PreflightError with all that would keep it from working."""
    state = live_state(folder)
    if state.run and state.run.process.alive():
        raise ClusterError(
            f"{state.run.folder}: a run goes on in this cluster (pid {state.run.process.pid}); wait for it, or end it "
            f"with: kill -INT {state.run.process.pid}"
        )
    sizes = [f"{KNOBS[name]}={value}" for name, value in state.size.items().items()]
    given = {change.partition("=")[0] for change in changes}
    sizes = [size for size in sizes if size.partition("=")[0] not in given]
    words = ["cluster.address=local", *sizes, *changes]
    config = load_config(recipe, words)  # says what is wrong before anything is started
    name = config.name or f"{Path(recipe).stem}-s{config.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    run = (Path(config.runs_dir).expanduser() / name).absolute()
    if (run / "config.toml").exists():
        raise ClusterError(
            f"{run}: holds a run already; name another (name=…), or go on with: t2po train --resume {run}"
        )
    check_run(config)
    return _launch(folder, state, run, ["train", recipe, *words, f"name={name}", f"runs_dir={run.parent}"])


def resume(folder: Path, run: Path) -> Submitted:
    """Goes on with a run that was submitted to this or an earlier cluster of this machine."""
    state = live_state(folder)
    if is_running(run):
        raise ClusterError(f"{run}: goes on already")
    if (address := RunFolder.read(run).config().cluster.address) != LOCAL:
        raise ClusterError(
            f"{run}: began with cluster.address = {address!r} and goes on there; go on with: t2po train --resume {run}"
        )
    return _launch(folder, state, run, ["train", "--resume", str(run)])


def resize(folder: Path, size: Size, say: Say) -> None:
    """Raylets, and the actors of the run that goes on. ClusterError or ControlError; then what was there is there."""
    state = live_state(folder)
    asked = {name: value for name, value in size.items().items() if value != getattr(state.size, name)}
    most = Size(**{name: max(value, getattr(state.size, name)) for name, value in size.items().items()})
    started = grow(folder, most, say)
    if started:
        say(f"started {', '.join(raylet.name for raylet in started)}")
    run = state.run if state.run and state.run.process.alive() else None
    if run and asked:
        try:
            words = [f"{name}={value}" for name, value in asked.items()]
            say(f"the run: {scale_run(Path(run.folder), words)}")
        except (ControlError, ValueError):
            retire(folder, started, say)
            write_state(folder, replace(live_state(folder), size=state.size))
            raise
    ended = shrink(folder, size, say)
    if ended:
        say(f"ended {', '.join(raylet.name for raylet in ended)}")
    if not started and not ended:
        say(f"nothing to do: {size}")


def _launch(folder: Path, state: ClusterState, run: Path, words: list[str]) -> Submitted:
    run.mkdir(parents=True, exist_ok=True)
    log = run / LOG
    paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    environment = {**os.environ, FOLDER_VARIABLE: str(folder), "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
    process = start([sys.executable, "-m", "controller.cli", *words], log, environment)
    submitted = Submitted(str(run), process, str(log))
    write_state(folder, replace(state, run=submitted))
    deadline = time.monotonic() + SETTLED_AFTER_S
    while time.monotonic() < deadline:
        if not process.alive():
            raise ClusterError(f"{run}: the run ended at once: {last_line(log)} (all of it: {log})")
        time.sleep(0.2)
    return submitted
