"""Two learner ranks as Ray actors: one update together, weights by reference, and the death of one."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import torch
from ray._raylet import AuthenticationTokenLoader, Config

from controller.learner_ranks import LearnerRankError, LearnerRanks
from controller.ray_session import RaySession
from learner.learner_actor import LearnerActor, actor_options
from learner.settings import Algorithm, LearnerSettings
from tests.learner_groups import make_group
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.timeout(600)

GROUPS = [make_group([[10.0], [0.0, 0.0], [0.0, 10.0]], index=index) for index in range(2)]


@pytest.fixture
def session() -> Iterator[None]:
    """Ray as a run starts it; afterwards this process's Ray is as it was, for tests that start a plain one."""
    before = dict(os.environ)
    session = RaySession(None, object_store_bytes=100 * 2**20)
    try:
        session.start()
        yield
    finally:
        session.stop()
        os.environ.clear()
        os.environ.update(before)
        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()


def test_learner_two_ranks_as_actors_and_the_death_of_one(session: None, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "tiny", layers=1, spread=0.2)
    settings = LearnerSettings(dtype="float32", num_ranks=2, zero_stage=2, device="cpu", micro_batch_tokens=128)
    options = {**actor_options(settings), "num_cpus": 0}
    handles = [
        LearnerActor.options(**options).remote(str(model), settings, Algorithm(), 0, rank=rank) for rank in range(2)
    ]
    asyncio.run(_live_and_die(LearnerRanks(handles, put=ray.put, kill=ray.kill), handles, tmp_path))


async def _live_and_die(ranks: LearnerRanks, handles: list[ray.actor.ActorHandle], folder: Path) -> None:
    await ranks.start(240)
    before = await ranks.weights.remote()
    metrics = await ranks.train_step.remote(GROUPS, 0)
    assert metrics["updates"] == 1.0
    assert await ranks.ready.remote() == 1
    after = await ranks.weights.remote()
    assert before.keys() == after.keys()
    assert not all(torch.equal(before[name], after[name]) for name in before)
    await ranks.save.remote(str(folder / "saved"))
    assert {path.name for path in (folder / "saved").glob("state-*")} == {
        "state-0000.safetensors",
        "state-0001.safetensors",
    }
    os.kill(await handles[1].__ray_call__.remote(lambda self: os.getpid()), signal.SIGKILL)
    with pytest.raises(LearnerRankError, match="rank 1 of 2, train_step"):
        await asyncio.wait_for(ranks.train_step.remote(GROUPS, 1), 60)
    with pytest.raises(Exception, match=r"died|killed|dead"):
        await asyncio.wait_for(handles[0].ready.remote(), 60)
