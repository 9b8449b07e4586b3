"""Queue, checkpoints, run folder and audit together: a small controller is killed again and again, with its server.

The stand-ins are the rollouts (a group is made from its index) and the learner (its weights are the list of groups
that it was trained on). Everything else is real. At the end every group was trained exactly once, in the same steps
as in an undisturbed run, and the audit agrees.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from controller.audit import judge_file
from controller.checkpoint import CheckpointStore
from controller.config import RunConfig
from controller.run_folder import RunFolder

STEPS, SIZE, EVERY = 24, 3, 3

CONTROLLER = """
import dataclasses, os, signal, sys, time
from pathlib import Path
from controller.audit import AuditLog
from controller.checkpoint import CheckpointState, CheckpointStore
from controller.replay_queue import ReplayQueue
from controller.run_folder import RunFolder
from controller.valkey import ValkeyServer
from tests.unit.test_codec_round_trip import a_group

steps, size, every, base = int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), a_group()

def index_of(name):
    return int(name.rsplit("-g", 1)[1])

with RunFolder.open(Path(sys.argv[1])) as folder, ValkeyServer(folder.queue) as server:
    store = CheckpointStore(folder.checkpoints, keep_last=3)
    checkpoint = store.latest()
    done = checkpoint.step if checkpoint else 0
    weights = (checkpoint.path / "learner").read_text().split() if checkpoint else []
    audit = AuditLog(folder.audit, resume_step=done)
    queue = ReplayQueue(server.url, folder.id, 2 * size * every, 30.0, revive=server.ensure_alive)
    # What a checkpoint that is gone had acknowledged has to be made again; what is committed may go.
    queue.forget([name for name in queue.acknowledged() if index_of(name) >= done * size])
    entries = queue.recover()
    while more := queue.pull(100, 0.0):
        entries += more
    queue.acknowledge([entry.entry_id for entry in entries if entry.group.index < done * size])
    ready = {entry.group.index: entry for entry in entries if entry.group.index >= done * size}
    consumed = []
    print("up", flush=True)
    while done < steps:
        wanted = range(done * size, (done + 1) * size)
        for index in wanted:
            name = f"{folder.id}-g{index}"
            if index not in ready:
                audit.write("issued", group=name, index=index, task=f"t{index}")
                members = tuple(dataclasses.replace(one, id=f"{name}/0", group_id=name) for one in base.trajectories)
                made = dataclasses.replace(base, id=name, index=index, trajectories=members)
                queue.push(made, even_if_full=index < max(ready, default=-1))  # as `controller.inbox` does
                audit.write("queued", group=name, trajectories=[f"{name}/0"])
        while any(index not in ready for index in wanted):
            ready |= {entry.group.index: entry for entry in queue.pull(size, 1.0)}
        done += 1
        for index in wanted:
            entry = ready.pop(index)
            weights.append(str(index))
            consumed.append(entry.entry_id)
            audit.write("trained", group=entry.group.id, trajectories=[f"{entry.group.id}/0"], step=done)
        if done % every == 0:
            state = CheckpointState(step=done, policy_version=done, next_group_index=done * size)
            (store.begin(done) / "learner").write_text(" ".join(weights))
            store.commit(done, state)
            queue.acknowledge(consumed)
            audit.write("committed", step=done)
            consumed = []
    print("finished", queue.depth(), flush=True)
"""


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_again_and_again(tmp_path: Path, seed: int) -> None:
    """Seed 1 also damages the newest checkpoint now and then, so that the run goes on from the one before."""
    chance = random.Random(seed)
    with RunFolder.create(RunConfig(runs_dir=str(tmp_path), name="run"), "alfworld") as folder:
        store = CheckpointStore(folder.checkpoints, keep_last=3)
    kills = damaged = 0
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        arguments = [sys.executable, "-c", CONTROLLER, str(folder.path), str(STEPS), str(SIZE), str(EVERY)]
        controller = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        assert controller.stdout is not None
        if kills < 8:
            if chance.random() < 0.8:  # else it is killed while it starts
                assert controller.stdout.readline() == "up\n"
            time.sleep(chance.uniform(0.0, 0.05))
            controller.send_signal(signal.SIGKILL)
            kills += 1
        try:
            said, _ = controller.communicate(timeout=60)
        finally:
            controller.kill()
        if "finished" in said:
            assert said.endswith("finished 0\n")
            break
        if seed == 1 and chance.random() < 0.5 and len(store.steps()) > 1:
            (store.folder / f"step-{store.steps()[-1]:08d}" / "learner").write_text("damaged")
            damaged += 1
    # how many kills it takes depends on the machine's speed; a fast one finishes between two of them
    assert kills >= 2 and (seed == 1 or damaged == 0)
    final = store.latest()
    assert final is not None and final.step == STEPS
    assert (final.path / "learner").read_text().split() == [str(index) for index in range(STEPS * SIZE)]
    report = judge_file(folder.audit)
    assert report.problems == []
    assert set(report.groups.values()) == {"trained"} and len(report.groups) == STEPS * SIZE
    assert set(report.trajectories.values()) == {"trained"} and report.committed_step == STEPS
