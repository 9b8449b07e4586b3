"""A cluster without a learner for as long as something is played: started, watched, ended however that ends.

Owns: `play_session`. Called by evaluation, calibration and the cold start. Must not know: what is played.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from controller.causes import innermost
from controller.cluster import Cluster
from controller.config import RunConfig
from controller.player import Player
from controller.stop_signal import Stopped, StopSignal

Result = TypeVar("Result")


def play_session(
    config: RunConfig,
    policy: Path,
    work: Callable[[Player], Awaitable[Result]],
    say: Callable[[str], None],
    folder: Path | None = None,
) -> Result:
    """The result of `work`, played by `policy`. Raises Stopped on Ctrl-C or SIGTERM, and the one cause of a failure.

    `folder` keeps the record of processes by which `controller.ray_session.clean_up_after` ends what a kill left.
    """

    async def play() -> Result:
        cluster = Cluster(config, policy, run_folder=folder, with_learner=False)
        with StopSignal(say) as stop:
            try:
                await stop.unless(cluster.start())
                stop.listen()
                return await stop.unless(cluster.guarded(work(Player(cluster))))
            finally:
                await cluster.stop()

    try:
        return asyncio.run(play())
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise Stopped from None
    except BaseExceptionGroup as error:  # the boundary that stops: one cause is enough, the CLI shows it
        raise innermost(error) from None
