"""The processes of a fine-tuning: one for each rank, started, watched and ended together.

Owns: `finetune_in_processes`. Called by the controller's cold start. Must not know: how a rank trains, where
demonstrations come from, Ray.

Training in processes of its own gives its memory back at the end, leaves the caller's torch threads alone, and
on a CPU two ranks of one thread are faster than one rank of two (bench/finetune.py).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from envs.records import Bool, Int32
from learner.finetune import FinetuneError, FinetuneProgress, finetune
from learner.finetune_place import PlaceError
from learner.settings import ColdstartSettings

SILENCE_S = 300.0
"""Longest time without a word from rank 0: its start (imports, loading) or one optimizer step."""
END_PATIENCE_S = 10.0


def finetune_in_processes(
    model_path: str | Path,
    folder: Path,
    demonstrations: Sequence[tuple[Int32, Int32]],
    settings: ColdstartSettings,
    seed: int,
    *,
    prompt_loss_weight: float = 0.0,
    masks: Sequence[Bool] | None = None,
    snapshots: Path | None = None,
    on_progress: Callable[[FinetuneProgress], None] | None = None,
) -> dict[str, float]:
    """`finetune` on `settings.num_ranks` processes of this machine; same arguments, result and errors.

    A rank that dies ends the others and raises FinetuneError with its exit code; so does SILENCE_S without
    progress. The processes end when the caller does, however it ends.
    """
    context = multiprocessing.get_context("spawn")
    arguments = (model_path, folder, demonstrations, settings, seed)
    options = {"prompt_loss_weight": prompt_loss_weight, "masks": masks, "snapshots": snapshots}
    port = _free_port() if settings.num_ranks > 1 else 0
    inbox, outbox = context.Pipe(duplex=False)
    ranks: list[BaseProcess] = [
        context.Process(
            target=_train_rank,
            args=(outbox, rank, port, arguments, options),
            name=f"finetune rank {rank}",
            daemon=True,
        )
        for rank in range(settings.num_ranks)
    ]
    try:
        for process in ranks:
            process.start()
        outbox.close()
        return _follow(ranks, inbox, on_progress)
    finally:
        _end(ranks)
        inbox.close()


def _follow(
    ranks: list[BaseProcess], inbox: Connection, on_progress: Callable[[FinetuneProgress], None] | None
) -> dict[str, float]:
    """Passes progress on until a rank has the result or an error, or is gone without either."""
    while True:
        ready = wait([inbox, *(process.sentinel for process in ranks if process.exitcode is None)], timeout=SILENCE_S)
        if not ready:
            raise FinetuneError(f"no rank made progress for {SILENCE_S:.0f} s; the machine may be out of memory")
        if inbox in ready:
            try:
                message = inbox.recv()
            except EOFError:
                message = None
            if isinstance(message, FinetuneProgress):
                if on_progress is not None:
                    on_progress(message)
                continue
            if isinstance(message, dict):
                return message
            if isinstance(message, Exception):
                raise message
        for rank, process in enumerate(ranks):
            if process.exitcode:
                raise FinetuneError(
                    f"rank {rank} of {len(ranks)} ended with exit code {process.exitcode}"
                    + (" (killed; out of memory?)" if process.exitcode == -signal.SIGKILL else "")
                    + "; nothing was written"
                )


def _train_rank(
    outbox: Connection,
    rank: int,
    port: int,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
) -> None:
    """The body of one rank's process; `arguments` and `options` are those of `finetune`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller decides what a Ctrl-C means, and ends this process
    parent = multiprocessing.parent_process()

    def tell(progress: FinetuneProgress) -> None:
        if parent is not None and not parent.is_alive():
            os._exit(1)
        if rank == 0:
            outbox.send(progress)

    try:
        metrics = finetune(*arguments, **options, on_progress=tell, rank=rank, port=port)
        if rank == 0:
            outbox.send(metrics)
    except (FinetuneError, PlaceError, ValueError, OSError) as error:
        outbox.send(error)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _end(ranks: list[BaseProcess]) -> None:
    for process in ranks:
        if process.exitcode is None and process.pid is not None:
            process.terminate()
    for process in ranks:
        if process.pid is None:
            continue
        process.join(END_PATIENCE_S)
        if process.exitcode is None:
            process.kill()
            process.join(END_PATIENCE_S)
