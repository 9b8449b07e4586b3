"""A training run from start to end: `run_training` and `resume_training`.

Owns: the lives of a run, one after another, and what is said when it ends. Called by the CLI. Must not know: what
happens in a life (`controller.training_run`), why one is to be followed by another.

A life ends when the run is done, by a signal, by its first failure, or because it asks to go on otherwise: with another
number of learner ranks, or from the last healthy checkpoint with a lower learning rate. Then the next one begins. So it
does when the learner was lost, which only a checkpoint can bring back, as often as `supervision.max_restarts` allows.
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

from controller.adjustments import NextLife, adjusted, adjustments_of
from controller.causes import cause_of, innermost
from controller.checkpoint import CheckpointStore
from controller.coldstart import prepare_policy
from controller.config import RunConfig
from controller.learner_ranks import LearnerLost
from controller.live_view import LiveView
from controller.metrics import read_metrics
from controller.mishaps import Tally, tally_of
from controller.queue_server_check import require_queue_server
from controller.ray_session import clean_up_after
from controller.replacements import PartLost
from controller.restart_budget import RestartBudget
from controller.run_folder import RunFolder
from controller.run_log import log_to
from controller.stop_signal import STOPPED_BY_SIGNAL, Stopped
from controller.training_run import Paused, TrainingRun
from envs.environment import require_ready

logger = logging.getLogger(__name__)

PAUSED = 75
"""Exit status of a run that paused itself: try again later (EX_TEMPFAIL)."""


def run_training(config: RunConfig, recipe: str) -> int:
    """A new run; the process's exit status."""
    require_ready(config.env)
    require_queue_server(config.queue)
    with RunFolder.create(config, recipe) as folder:
        return _conduct(config, folder, resumed=False)


def resume_training(run_folder: Path) -> int:
    """Goes on with a run from its last committed checkpoint; the process's exit status."""
    with RunFolder.open(run_folder) as folder:
        if left := clean_up_after(folder.path):
            logger.warning("ended %d processes of an earlier life of the run", left)
        require_ready(folder.config().env)
        require_queue_server(folder.config().queue)
        return _conduct(folder.config(), folder, resumed=True)


def _conduct(config: RunConfig, folder: RunFolder, *, resumed: bool) -> int:
    """The boundary that stops: whatever ends the run is named, with the way to go on; then the CLI has it."""
    log_to(folder.log)
    with LiveView(folder.path.name, config.steps, folder=folder.path) as view:
        view.note(f"run folder: {folder.path}")
        try:
            policy = prepare_policy(config, folder.policy, view.note)
            lives = _Lives(config, folder, policy, view, resumed=resumed)
            while cause := lives.live():
                view.note(f"the run begins anew: {cause}")
        except (Stopped, KeyboardInterrupt, asyncio.CancelledError):
            view.note(f"stopped; go on with: t2po train --resume {folder.path}")
            return STOPPED_BY_SIGNAL
        except Paused as pause:
            view.note(f"paused: {pause}; go on with: t2po train --resume {folder.path}")
            return PAUSED
        except Exception as error:
            logger.exception("the run ended")
            view.note(f"the run ended: {cause_of(error)}")
            view.note(f"details: {folder.log}; when the cause is gone, go on with: t2po train --resume {folder.path}")
            raise innermost(error) from None
    return 0


class _Lives:
    """The lives of a run in this process, and why one follows another."""

    def __init__(self, config: RunConfig, folder: RunFolder, policy: Path, view: LiveView, *, resumed: bool) -> None:
        self._config = config
        self._folder = folder
        self._policy = policy
        self._view = view
        self._resumed = resumed
        self._budget = RestartBudget(config.supervision)
        self._tally = _tally_so_far(folder) if resumed else Tally()
        self._lost_after = -1
        """The committed step that the learner was lost after; -1: it was not."""

    def live(self) -> str:
        """One life; why there has to be another one, empty when the run is done."""
        present = adjusted(self._config, adjustments_of(self._folder.path), str(self._folder.path))
        run = TrainingRun(
            present, self._folder, self._policy, self._view, resumed=self._resumed, base=self._config,
            earlier=self._tally,
        )  # fmt: skip
        self._resumed = True
        self._tally = Tally(run.cluster.restarts, run.player.failures)
        try:
            asyncio.run(run.conduct())
        except NextLife as change:
            if change.back_to is not None:
                _go_back(self._config, self._folder, change.back_to)
            return change.cause
        except Exception as error:
            if not isinstance(innermost(error), LearnerLost):
                raise
            return self._after_lost_learner(run.state.committed, cause_of(error))
        return ""

    def _after_lost_learner(self, committed: int, cause: str) -> str:
        """PartLost when that happened too often."""
        pause_s = self._budget.spend(in_vain=committed == self._lost_after)
        self._lost_after = committed
        if pause_s is None:
            raise PartLost(f"the learner is not started again, the budget is {self._budget}; last: {cause}")
        self._tally.restarts["learner"] += 1
        logger.warning("the learner was lost (%d of %s): %s", self._budget.num_spent, self._budget, cause)
        time.sleep(pause_s)
        return cause


def _tally_so_far(folder: RunFolder) -> Tally:
    """As the last step that was written tells, though it may be behind the checkpoint."""
    steps = read_metrics(folder.metrics) if folder.metrics.is_file() else []
    return tally_of(steps[-1].values) if steps else Tally()


def _go_back(config: RunConfig, folder: RunFolder, step: int) -> None:
    """What is later than `step` never was, but for a copy of its metrics."""
    earlier = sorted(folder.path.glob("metrics.before-rollback-*.jsonl"))
    if folder.metrics.exists():
        copy = folder.path / f"metrics.before-rollback-{len(earlier) + 1}.jsonl"
        copy.write_bytes(folder.metrics.read_bytes())
    CheckpointStore(folder.checkpoints, config.checkpoint.keep_last).go_back(step)
