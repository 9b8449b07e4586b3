"""A private Ray for one run on this machine: started quietly, authenticated, and gone without a trace.

Owns: `ray.init` and its environment, the session's folder, the record of its processes. Called by
`controller.cluster`. Must not know: which actors run in it.

Ray's ports listen on every interface whatever address it is given, so every session has a random token
of its own (docs: "Security"). The dashboard and the job API are not started. Several sessions live side
by side on one machine: each has its own folder below the system's temporary folder (the run folder
would not do: a socket's path may have 107 bytes) and free ports chosen by Ray.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

import psutil

from controller.causes import cause_of
from controller.cluster_access import read_environment_again
from controller.ray_servers import RayServers
from controller.reaper import Reaper, end_processes, end_recorded
from controller.run_log import LOG_FILE
from controller.start_guard import StartGuard

logger = logging.getLogger(__name__)

PROCESS_FILE = "processes.json"
"""In the run folder while the run lives: its processes, so that `resume` can clean up after a kill -9."""

LOG_FOLDER = "actor-logs"
"""In the run folder after its end: what the actors printed, by pid."""

EMPTY_LOG_BYTES = 200
"""Ray writes a line or two of its own into every log."""

WATCH_EVERY_S = 2.0
SHUTDOWN_S = 20.0
"""Ray has so long to shut down, and once more when its processes are killed."""
"""How often new processes of the session are looked for."""


class RayStartError(RuntimeError):
    """Ray does not come up; the message names the cause and the remedy."""


class RaySession:
    """Start it once, stop it once; `stop` is safe to call at any time and more than once."""

    def __init__(self, run_folder: Path | None, object_store_bytes: int) -> None:
        self._object_store_bytes = object_store_bytes
        self._folder: Path | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._roots: list[psutil.Process] = []
        self._family: dict[int, psutil.Process] = {}
        self._parents: dict[int, int] = {}
        self._run_folder = run_folder
        self._reaper: Reaper | None = None
        self._servers = RayServers([])

    def start(self) -> None:
        """Blocks for about ten seconds. Raises RayStartError."""
        with self._lock:
            self._start()

    def _start(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="t2po-ray-"))
        self._reaper = Reaper((self._run_folder or self._folder) / PROCESS_FILE, self._folder)
        token = self._folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32), encoding="ascii")
        os.environ.update(_environment(token))
        read_environment_again()  # of its import, which may have been another session's
        self._reaper.watch([])  # a process that Ray ends leaves no folder behind
        with StartGuard("starting Ray", self._run_folder and self._run_folder / LOG_FILE):
            self._start_servers(self._folder)
        self._servers = RayServers(self._roots)
        threading.Thread(target=self._watch, name="process-watch", daemon=True).start()

    def _start_servers(self, folder: Path) -> None:
        import ray

        before = set(psutil.Process().children())
        try:
            ray.init(
                address="local",
                num_cpus=1,  # every actor asks for 0: the machine's cores are shared by hand (settings.num_threads)
                include_dashboard=False,
                _temp_dir=str(folder),
                object_store_memory=self._object_store_bytes,
                log_to_driver=False,
                logging_level="error",
                namespace="t2po",
            )
        except Exception as error:  # the boundary that stops: Ray raises a bare Exception, with advice for developers
            raise RayStartError(
                f"Ray did not start: {cause_of(error)}; the machine may be overloaded, or short of memory or of space "
                f"in {tempfile.gettempdir()}: free some and start again"
            ) from error
        finally:  # a Ray that came up halfway has processes too
            self._roots = [child for child in psutil.Process().children() if child not in before]
            self._note_processes()

    def _watch(self) -> None:
        while not self._ended.wait(WATCH_EVERY_S):
            with self._lock:
                self._note_processes()

    def _note_processes(self) -> None:
        """Notes Ray's processes and their children (engines): once a parent is dead nobody knows whose they were."""
        for root in self._roots:
            with contextlib.suppress(psutil.Error):
                for process in [root, *root.children(recursive=True)]:
                    self._family[process.pid] = process
                    self._parents.setdefault(process.pid, process.ppid())  # of its birth: orphans get another one
        self._family = {pid: process for pid, process in self._family.items() if process.is_running()}
        self._parents = {pid: parent for pid, parent in self._parents.items() if pid in self._family}
        if self._reaper is not None:
            self._reaper.watch(self._family.values())

    def problem(self, patience_s: float) -> str:
        """Why no actor can live here any more, in words; "" while all is well (`controller.ray_servers`)."""
        return self._servers.problem(patience_s)

    def metrics_addresses(self) -> list[str]:
        """Where the nodes' agents serve Ray's own metrics, "host:port"; none before the start and while Ray does not
        say. They answer to anyone who reaches the port, without the token."""
        return [] if self._folder is None else metrics_addresses()

    def end_children_of(self, pid: int) -> None:
        """Ends what an actor that is dead by now had started: an engine does not notice, and keeps its memory."""
        with self._lock:
            end_processes([self._family[child] for child in _descendants(pid, self._parents)], patience_s=0.0)

    def stop(self) -> None:
        """Ends Ray and whatever its actors started, waits until nothing is left, removes the folder."""
        with self._lock:  # a start that goes on in another thread is waited for: what it starts has to be found
            self._stop()

    def _stop(self) -> None:
        if self._folder is None:
            return
        import ray

        self._ended.set()
        self._note_processes()
        # In a thread: without its servers Ray may wait for them, and they do not come back.
        shutting_down = threading.Thread(target=ray.shutdown, name="ray-shutdown", daemon=True)
        shutting_down.start()
        shutting_down.join(SHUTDOWN_S)
        if shutting_down.is_alive():
            logger.warning("Ray did not shut down within %g s: its processes are killed", SHUTDOWN_S)
        end_processes(list(self._family.values()))
        shutting_down.join(SHUTDOWN_S)
        self._family.clear()
        try:
            self._keep_logs(self._folder)
        except OSError as error:  # a full disk: what ended the run matters more than what the actors printed
            logger.warning("the actors' logs were not kept: %s", error)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = None
        if self._reaper is not None:
            self._reaper.release()
            self._reaper = None

    def _keep_logs(self, folder: Path) -> None:
        """What the actors printed (an engine that did not start says there why) goes to the run's folder."""
        if self._run_folder is None:
            return
        kept = self._run_folder / LOG_FOLDER
        for log in folder.glob("session_*/logs/worker-*"):
            if log.stat().st_size > EMPTY_LOG_BYTES and not log.parent.parent.is_symlink():
                kept.mkdir(exist_ok=True)
                shutil.copy(log, kept / f"{log.stem.rsplit('-', 1)[1]}{log.suffix}")


def metrics_addresses() -> list[str]:
    """Where the nodes of the Ray that this process is in serve Ray's own metrics; none while it does not say."""
    import ray

    try:
        nodes = ray.nodes()
    except Exception as error:  # metrics end nothing: that Ray is gone is found by those who need it
        logger.info("Ray does not say where its metrics are: %s", cause_of(error))
        return []
    return [f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}" for node in nodes if node["Alive"]]


def _descendants(pid: int, parents: Mapping[int, int]) -> list[int]:
    """Children and their children, by the table process -> parent."""
    children = [child for child, parent in parents.items() if parent == pid]
    return children + [one for child in children for one in _descendants(child, parents)]


def clean_up_after(run_folder: Path) -> int:
    """Ends what a killed run (and its killed reaper) left behind; how many processes there were."""
    return end_recorded(run_folder / PROCESS_FILE)


def _environment(token: Path) -> dict[str, str]:
    root = str(Path(__file__).resolve().parent.parent)
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        # An engine that is killed leaves its sockets behind: here they are removed with the folder.
        "VLLM_RPC_BASE_PATH": str(token.parent),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_worker_niceness": "0",  # Ray's default of 15 starves the engine when anything else runs on the machine
        "RAY_DEDUP_LOGS": "0",
        # Nobody can ask for past tasks (there is no dashboard); to keep them cost the GCS 27 MB in 1,000 trajectories.
        "RAY_task_events_report_interval_ms": "0",
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
    }
