"""The embedded Valkey server that holds the replay queue when no Redis URL is given.

Owns: one server process (configuration, port, password, start, restart, end) and the folder with its append-only
file. Called by the training loop; the replay queue calls `ensure_alive` while it waits for the server to come back.
Must not know: what is stored in the server.

The server never outlives the process that started it: the kernel sends it SIGKILL when the thread that started it
ends (PR_SET_PDEATHSIG), so a thread that lives as long as the server does all the starting.

SIGKILL loses nothing that was confirmed, because of `appendfsync always`. The usual `everysec` does not keep that
promise: while a background fsync is slow (a checkpoint is being written), it confirms before it writes. Measured with
a busy disk: in 2 of 12 kills 31 and 78 confirmed entries were gone with `everysec`, none with `always`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import secrets
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Literal

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from controller.process_identity import ProcessId
from controller.valkey_process import (
    PORT_IS_TAKEN,
    Starter,
    ValkeyError,
    configuration,
    earlier_access,
    free_port,
    log_cause,
    server_binary,
    write_private,
)

__all__ = ["ValkeyError", "ValkeyServer"]

logger = logging.getLogger(__name__)

PORT_TRIES = 5
"""Free ports that are tried when another process takes the chosen one first."""
POLL_S = 0.05
ANSWER_TIMEOUT_S = 10.0
"""A running server that has not answered PING for so long counts as hung and is replaced."""


class _PortTakenError(Exception):
    """Another process was faster; another port is tried."""


class ValkeyServer:
    """One embedded server. All methods may be called from any thread."""

    def __init__(
        self,
        folder: Path,
        *,
        log: Path | None = None,
        port: int = 0,
        max_memory_mb: int = 1024,
        fsync: Literal["always", "everysec", "no"] = "always",
        max_restarts: int = 5,
        restart_window_s: float = 600.0,
    ) -> None:
        """`folder` holds the append-only file, the configuration and the record; port 0 takes a free one."""
        self.folder = folder.absolute()
        self.log = (log or folder / "valkey.log").absolute()
        self._fixed_port = port
        self._port = port
        self._max_memory_mb = max_memory_mb
        self._fsync = fsync
        self._max_restarts = max_restarts
        self._restart_window_s = restart_window_s
        self._restarts: list[float] = []
        self._log_start = 0
        self._password = secrets.token_urlsafe(24)
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._identity: ProcessId | None = None
        self._starter: Starter | None = None

    @property
    def url(self) -> str:
        if self._process is None:
            raise ValkeyError(f"{self.folder}: the embedded server was not started")
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise ValkeyError(f"{self.folder}: the embedded server was not started")
        return self._process.pid

    @property
    def num_restarts(self) -> int:
        """Restarts within the window that the budget is counted over."""
        return len(self._restarts)

    def __enter__(self) -> ValkeyServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, timeout_s: float = 30.0) -> str:
        """Starts the server on what its folder holds and returns its URL once it answers."""
        with self._lock:
            if self._process is not None:
                raise ValkeyError(f"{self.folder}: the embedded server was started already (pid {self._process.pid})")
            deadline = time.monotonic() + timeout_s
            binary = server_binary()
            self._clear_old_server()
            # As in the life before: who watches the server finds it again.
            port, self._password = earlier_access(self.folder / "valkey.conf") or (0, self._password)
            self._starter = Starter()
            self._starter.start()
            for attempt in range(1, PORT_TRIES + 1):
                self._port = self._fixed_port or (port if attempt == 1 and port else free_port())
                try:
                    self._launch(binary, deadline, timeout_s)
                    break
                except _PortTakenError as error:
                    if self._fixed_port or attempt == PORT_TRIES:
                        self._forget_process()
                        raise ValkeyError(
                            f"port {self._port} on 127.0.0.1 is taken: end what listens there, or use port 0"
                        ) from error
                except ValkeyError:
                    self._forget_process()
                    raise
            return self.url

    def ensure_alive(self, timeout_s: float = 30.0) -> bool:
        """True when the server was gone or hung and runs again. Raises when the restart budget is spent."""
        with self._lock:
            if self._process is None or self._identity is None:
                raise ValkeyError(f"{self.folder}: the embedded server was not started")
            deadline = time.monotonic() + timeout_s
            cause = self._what_is_wrong(deadline)
            if not cause:
                return False
            while True:
                self._spend_restart(cause)
                self._end_process(signal.SIGKILL, 5.0)
                try:
                    self._launch(server_binary(), deadline, timeout_s)
                except (ValkeyError, _PortTakenError) as error:
                    cause = str(error)
                    if time.monotonic() > deadline:
                        raise ValkeyError(f"{self.folder}: the embedded server does not come back: {cause}") from error
                    continue
                logger.warning("embedded Valkey restarted (%s), restart %d", cause, len(self._restarts))
                return True

    def stop(self, timeout_s: float = 10.0) -> None:
        """Ends the server; afterwards no process of it is left. A second call does nothing."""
        with self._lock:
            if self._process is not None:
                self._end_process(signal.SIGTERM, timeout_s)
                self._forget_process()

    def _what_is_wrong(self, deadline: float) -> str:
        assert self._process is not None
        code = self._process.poll()
        if code is not None:
            return _ending(code, self.log, self._log_start)
        answer_by = min(deadline, time.monotonic() + ANSWER_TIMEOUT_S)
        while True:
            try:
                self._ping()
                return ""
            except redis.exceptions.BusyLoadingError:
                answer_by = deadline  # it reads its append-only file: alive, and worth waiting for
            except redis.RedisError as error:
                if self._process.poll() is not None:
                    return _ending(self._process.returncode, self.log, self._log_start)
                if time.monotonic() > answer_by:
                    return f"it runs but did not answer PING for {ANSWER_TIMEOUT_S:.0f} s: {error}"
            if time.monotonic() > deadline:
                raise ValkeyError(f"{self.folder}: the embedded server still reads its append-only file; wait longer")
            time.sleep(POLL_S)

    def _spend_restart(self, cause: str) -> None:
        now = time.monotonic()
        self._restarts = [moment for moment in self._restarts if now - moment < self._restart_window_s]
        if len(self._restarts) >= self._max_restarts:
            raise ValkeyError(
                f"{self.folder}: the embedded server went down again ({cause}) after {self._max_restarts} "
                f"restarts within {self._restart_window_s:.0f} s; see {self.log}, then resume the run"
            )
        if self._restarts:
            time.sleep(min(0.1 * 2 ** len(self._restarts), 5.0))
        self._restarts.append(now)

    def _launch(self, binary: Path, deadline: float, timeout_s: float) -> None:
        """One try: writes the configuration, starts the process, waits until it answers."""
        assert self._starter is not None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.log.parent.mkdir(parents=True, exist_ok=True)
            config = self.folder / "valkey.conf"
            write_private(
                config, configuration(self.folder, self._port, self._password, self._max_memory_mb, self._fsync)
            )
            self._log_start = self.log.stat().st_size if self.log.exists() else 0
            self._process = self._starter.popen(binary, config, self.log)
            self._identity = ProcessId.of(self._process.pid)
            self._write_record()
        except OSError as error:
            raise ValkeyError(f"{error.filename or self.folder}: {error.strerror}: choose another runs_dir") from error
        self._wait_ready(deadline, timeout_s)

    def _wait_ready(self, deadline: float, timeout_s: float) -> None:
        assert self._process is not None
        last_error = ""
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                cause = log_cause(self.log, self._log_start)
                if cause == PORT_IS_TAKEN:
                    raise _PortTakenError(f"port {self._port} is taken")
                raise ValkeyError(f"{self.folder}: the embedded server does not start: {cause}; its log is {self.log}")
            try:
                self._ping()
                return
            except redis.RedisError as error:
                last_error = str(error)
            time.sleep(POLL_S)
        self._end_process(signal.SIGKILL, 5.0)
        raise ValkeyError(
            f"{self.folder}: the embedded server did not answer within {timeout_s:.0f} s ({last_error}); "
            f"its log is {self.log}"
        )

    def _ping(self) -> None:
        with redis.Redis.from_url(self.url, socket_timeout=2.0, retry=Retry(NoBackoff(), 0)) as client:
            try:
                client.ping()
            except redis.ResponseError as error:
                if "MISCONF" not in str(error):  # its disk is full: it refuses to write, and lives
                    raise

    def _end_process(self, number: signal.Signals, timeout_s: float) -> None:
        process, identity = self._process, self._identity
        if process is None:
            return
        if identity is not None:
            identity.kill(number)
            if not identity.wait_gone(timeout_s):
                logger.warning(
                    "embedded Valkey (pid %d) ignored %s for %.0f s: killed", process.pid, number.name, timeout_s
                )
                identity.kill(signal.SIGKILL)
        process.wait(timeout=5.0)

    def _forget_process(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._end_process(signal.SIGKILL, 5.0)
        self._process = self._identity = None
        if self._starter is not None:
            self._starter.end()
            self._starter = None
        with contextlib.suppress(OSError):  # a record that stays names a process that is gone: harmless
            (self.folder / "server.json").unlink()

    def _write_record(self) -> None:
        """So that a later owner of the folder finds this process, should it live."""
        owner = ProcessId.of(os.getpid())
        if self._identity is None or owner is None:  # gone already: what waits for it will say so
            return
        record = {"server": dataclasses.asdict(self._identity), "owner": dataclasses.asdict(owner), "port": self._port}
        write_private(self.folder / "server.json", json.dumps(record) + "\n")

    def _clear_old_server(self) -> None:
        """Two servers on one append-only file destroy it: what an owner that died left behind is ended first."""
        path = self.folder / "server.json"
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            server, owner = ProcessId(**record["server"]), ProcessId(**record["owner"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s: unreadable record of an earlier server (%s); going on without it", path, error)
            return
        if not server.alive():
            return
        if owner.alive():
            raise ValkeyError(
                f"{self.folder}: process {owner.pid} runs a server here (pid {server.pid}); end that run first"
            )
        server.kill(signal.SIGKILL)
        if not server.wait_gone(5.0):
            raise ValkeyError(f"{self.folder}: an earlier server (pid {server.pid}) does not end; end it by hand")


def _ending(code: int, log: Path, log_start: int) -> str:
    """A signal explains itself; a status needs the log."""
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}: {log_cause(log, log_start)}"
