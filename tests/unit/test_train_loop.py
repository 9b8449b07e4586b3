"""The training loop with every remote part played by a stand-in: steps, checkpoints, stops, heartbeats, resumes."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError
from rich.console import Console

from actors.rollout import TrajectorySpec
from controller import heartbeat, inbox, training_run
from controller.audit import judge_file
from controller.checkpoint import CheckpointError, CheckpointStore
from controller.config import RunConfig, validate
from controller.live_view import LiveView
from controller.run_folder import RunFolder
from controller.stop_signal import Stopped
from controller.training_run import TrainingRun
from controller.weight_route import WeightMismatch
from envs.panel import Panel, make_panel
from envs.records import Trajectory, Turn
from tests.fake_queue import FakeQueue
from tests.fakes import make_turn
from tests.unit.test_codec_round_trip import assert_same


def call(answer: Callable[..., Awaitable[Any]]) -> Any:
    """`handle.method.remote(...)` of an actor."""
    return SimpleNamespace(remote=answer)


class FakeCluster:
    """One environment actor and a learner; `script` says how long or how badly each takes."""

    def __init__(self, config: RunConfig, policy: Path, **_: Any) -> None:
        self.config = config
        self.policy = policy
        self.restarts: Counter[str] = Counter()
        self.status: dict[str, dict[str, Any]] = {}
        self.train_s = self.play_s = 0.0
        self.deaths = 0
        self.training = False
        self.steps_trained: list[int] = []
        self.loaded = -1
        self.publication = SimpleNamespace(publish=self.publish)
        self.env = {"env-0": SimpleNamespace(run=call(self._play))}
        self.leaving: set[str] = set()
        self.inference: dict[str, Any] = {"inference-0": None}
        self.routers = [
            SimpleNamespace(
                forget=SimpleNamespace(remote=lambda names: None), live=call(self._nothing),
                live_many=call(self._no_turns),
            )
            for _ in range(config.rollout.num_routers)
        ]  # fmt: skip
        self.learner = SimpleNamespace(
            train_step=call(self._train), save=call(self._save), export=call(self._save), load=call(self._load)
        )

    async def _play(self, spec: TrajectorySpec, replay: tuple[Turn, ...]) -> Trajectory:
        await asyncio.sleep(self.play_s)
        if self.deaths and spec.sampling == "train":
            self.deaths -= 1
            raise ActorDiedError()
        return Trajectory(
            id=spec.trajectory_id, group_id=spec.group_id, task=spec.task, sibling=spec.sibling, attempt=spec.attempt,
            turns=(make_turn(),), won=spec.sibling == 0, duration_s=0.0,
        )  # fmt: skip

    async def _nothing(self, name: str) -> tuple[Turn, ...]:
        return ()

    async def _no_turns(self, names: list[str]) -> dict[str, tuple[Turn, ...]]:
        return {}

    async def _train(self, groups: list[Any], version: int) -> dict[str, float]:
        self.training = True
        await asyncio.sleep(self.train_s)
        self.training = False
        self.steps_trained.append(version)
        return {"updates": 1.0}

    async def _save(self, folder: str) -> None:
        Path(folder).mkdir()
        (Path(folder) / "weights").write_text(str(self.steps_trained))

    async def _load(self, folder: str) -> None:
        self.loaded = len(json.loads((Path(folder) / "weights").read_text()))
        self.steps_trained = list(range(self.loaded))

    async def start(self) -> None:
        return None

    async def stop(self) -> None:
        return None

    async def watch(self) -> None:
        await asyncio.sleep(3600)

    async def guarded(self, work: Awaitable[Any]) -> Any:
        return await work

    async def busy_spans(self) -> list[Any]:
        return []

    async def revive_env(self, name: str, dead: Any, cause: str) -> None:
        return None

    async def ask_learner(self, call: Awaitable[Any], what: str) -> Any:
        return await call

    async def learner_weights(self, version: int) -> Any:
        return version

    async def publish(self, version: int, weights: Any) -> dict[str, Any]:
        return {"inference-0": SimpleNamespace(bytes=1, pause_seconds=0.0, checksums=None)}


def panel(env: str, name: str) -> Panel:
    return make_panel(env, name, [(f"{name}-{index}", "walk", f"{name}{index}") for index in range(6)])


class Scene:
    """One run in a folder; each `life` is a process of it."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(training_run, "Cluster", FakeCluster)
        monkeypatch.setattr(training_run, "load_panel", panel)
        monkeypatch.setattr(inbox, "PULL_WAIT_S", 0.005)
        monkeypatch.setattr(heartbeat, "EVERY_S", 0.01)
        self.monkeypatch = monkeypatch
        self.root = tmp_path
        self.queue = FakeQueue()
        self.folder: Path
        self.beats = 0

    def config(self, **sections: Any) -> RunConfig:
        tree: dict[str, Any] = {
            "name": "run", "runs_dir": str(self.root), "steps": 4, "queue": {"url": "redis://nowhere"},
            "rollout": {"groups_per_step": 2, "group_size": 2, "max_staleness": 1, "num_env_actors": 1},
            "eval": {"num_tasks": 2}, "checkpoint": {"every_steps": 2}, "metrics": {"port": 0},
        }  # fmt: skip
        return validate({**tree, **sections}, source="test")

    def first_life(self, **sections: Any) -> TrainingRun:
        folder = RunFolder.create(self.config(**sections), "test")
        self.folder = folder.path
        folder.policy.mkdir()
        (folder.policy / "config.json").write_text("{}")
        return self._life(folder, resumed=False)

    def next_life(self) -> TrainingRun:
        """What a kill leaves: the folder and the server's entries."""
        self.queue = self.queue.reopened()
        return self._life(RunFolder.open(self.folder), resumed=True)

    def _life(self, folder: RunFolder, *, resumed: bool) -> TrainingRun:
        self.folder_in_use = folder
        config = folder.config()
        self.queue.max_groups = config.queue.max_groups
        view = LiveView("run", config.steps, Console(file=io.StringIO()))
        run = TrainingRun(config, folder, folder.policy, view, resumed=resumed)
        run._open_queue = lambda server: self.queue  # type: ignore[method-assign,assignment,return-value]
        beat = run._beat

        def counted() -> None:
            self.beats += 1
            beat()

        run._beat = counted  # type: ignore[method-assign]
        return run

    def conduct(self, run: TrainingRun) -> None:
        try:
            asyncio.run(run.conduct())
        finally:
            self.folder_in_use.close()

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]

    def events(self, kind: str) -> list[dict[str, Any]]:
        lines = (self.folder / "audit.jsonl").read_text().splitlines()
        return [event for line in lines if (event := json.loads(line))["event"] == kind]

    def check_complete(self, steps: int = 4) -> None:
        assert [row["step"] for row in self.rows()] == list(range(1, steps + 1))
        report = judge_file(self.folder / "audit.jsonl")
        assert report.problems == []
        assert report.counts() == {"trained": 2 * steps, "dropped": 0, "live": 0}


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(tmp_path, monkeypatch)


def cluster_of(run: TrainingRun) -> FakeCluster:
    assert isinstance(run.cluster, FakeCluster)
    return run.cluster


def test_train_run_from_start_to_end(scene: Scene) -> None:
    run = scene.first_life()
    scene.conduct(run)
    scene.check_complete()
    assert cluster_of(run).steps_trained == [0, 1, 2, 3]
    assert CheckpointStore(scene.folder / "checkpoints", 2).steps() == [2, 4]
    labels = {path.stem.split("-")[-1] for path in (scene.folder / "evaluations").glob("*.json")}
    assert labels == {"before", "after"}
    assert scene.queue.depth() == 0


def test_train_audit_names_the_step_that_trained_a_group_and_the_one_under_way_when_it_was_dropped(
    scene: Scene,
) -> None:
    run = scene.first_life(steps=3, checkpoint={"every_steps": 3})
    cluster_of(run).deaths = 1
    scene.conduct(run)
    trained = {event["group"].rsplit("-g", 1)[1]: event["step"] for event in scene.events("trained")}
    assert trained == {f"{index:06d}": index // 2 + 1 for index in range(6)}
    (dropped,) = scene.events("dropped")
    assert dropped["step"] == 1, "nothing is finished: the first step is under way"
    assert [event["step"] for event in scene.events("committed")] == [3]


def test_train_groups_without_signal_are_replaced_and_a_resume_goes_on_behind_them(scene: Scene) -> None:
    """Every third group is lost by all: left out, named in the audit, and replaced by the next one."""
    sizes: list[int] = []

    def rehearse(run: TrainingRun) -> None:
        cluster = cluster_of(run)
        play, learn = cluster._play, cluster._train

        async def lose_some(spec: TrajectorySpec, replay: tuple[Turn, ...]) -> Trajectory:
            trajectory = await play(spec, replay)
            return replace(trajectory, won=trajectory.won and spec.group_index % 3 != 0)

        async def count(groups: list[Any], version: int) -> dict[str, float]:
            sizes.append(len(groups))
            if version == 2 and len(sizes) == 3:
                raise ActorDiedError()
            return await learn(groups, version)

        cluster.env["env-0"].run, cluster.learner.train_step = call(lose_some), call(count)

    run = scene.first_life(advantage={"keep_groups": "mixed_success", "refill": 2})
    rehearse(run)
    with pytest.raises(ActorDiedError):
        scene.conduct(run)
    again = scene.next_life()
    rehearse(again)
    scene.conduct(again)
    assert sizes == [2, 2, 2, 2, 2]
    assert [row["groups_dropped"] for row in scene.rows()] == [1, 1, 1, 1]  # 0; 3; 6; 9: of 12 in the row
    report = judge_file(scene.folder / "audit.jsonl")
    assert report.problems == []
    assert report.counts() == {"trained": 8, "dropped": 4, "live": 0}
    assert {int(name[-6:]) for name, verdict in report.groups.items() if verdict == "dropped"} == {0, 3, 6, 9}


def test_train_beats_while_the_learner_works_and_during_evaluation(scene: Scene) -> None:
    run = scene.first_life(steps=1)
    cluster = cluster_of(run)
    cluster.train_s = cluster.play_s = 0.15
    cluster.status = {"env-0": {"idle_envs": 1, "live": 3, "steps": 5, "memory_mb": 7.0}}
    told: Counter[str] = Counter()
    said = run.view.part

    def listen(part: str, doing: str) -> None:
        if part == "env-0":
            assert doing == "3 trajectories, 5 steps, 7 MB"
            phase = run.view.state.parts.get("run")
            told["learner" if cluster.training else phase.doing.split()[0] if phase else "start"] += 1
        said(part, doing)

    run.view.part = listen  # type: ignore[method-assign]
    scene.conduct(run)
    assert told["learner"] >= 3
    assert told["evaluating"] >= 6, "before and after"
    assert scene.beats >= told.total()


def test_train_beats_while_it_starts_and_while_it_ends(scene: Scene) -> None:
    """Whoever watches sees that it lives, however long its parts take to come up and to end."""
    run = scene.first_life(steps=1)
    cluster = cluster_of(run)
    beats: list[int] = []

    async def slow() -> None:
        before = scene.beats
        await asyncio.sleep(0.2)
        beats.append(scene.beats - before)

    cluster.start = cluster.stop = slow  # type: ignore[method-assign]
    scene.conduct(run)
    assert len(beats) == 2 and min(beats) >= 3


def test_train_beat_that_fails_ends_the_run_with_its_cause(scene: Scene) -> None:
    run = scene.first_life()
    cluster_of(run).status = {"env-0": {"idle_envs": 1}}
    with pytest.raises(KeyError, match="live"):
        scene.conduct(run)


def test_train_stop_while_the_learner_works_finishes_the_step_and_saves_it(scene: Scene) -> None:
    run = scene.first_life(checkpoint={"every_steps": 4})
    cluster = cluster_of(run)
    cluster.train_s = 0.1
    real = cluster._train

    async def interrupted(groups: list[Any], version: int) -> dict[str, float]:
        if version == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return await real(groups, version)

    cluster.learner.train_step = call(interrupted)
    with pytest.raises(Stopped):
        scene.conduct(run)
    assert CheckpointStore(scene.folder / "checkpoints", 2).steps() == [2]
    assert cluster.steps_trained == [0, 1], "the step under way was finished, none was begun"
    again = scene.next_life()
    scene.conduct(again)
    assert cluster_of(again).loaded == 2
    scene.check_complete()


def test_train_stop_while_it_waits_for_groups_is_noticed(scene: Scene) -> None:
    run = scene.first_life()
    cluster = cluster_of(run)
    real = cluster._play

    async def hang(spec: TrajectorySpec, replay: tuple[Turn, ...]) -> Trajectory:
        if (spec.group_index, spec.sibling) == (3, 0):
            while run.done == 0:  # then nothing but the groups of the second step is waited for
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.05)
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()
        return await real(spec, replay)

    cluster.env["env-0"].run = call(hang)
    with pytest.raises(Stopped):
        scene.conduct(run)
    assert CheckpointStore(scene.folder / "checkpoints", 2).steps() == [1]


def test_train_small_queue_never_makes_the_rollouts_wait(scene: Scene) -> None:
    """Checkpoints are rare and staleness is high: places become free in time all the same."""
    rollout = {"groups_per_step": 2, "group_size": 2, "max_staleness": 3, "num_env_actors": 1}
    run = scene.first_life(
        steps=12, rollout=rollout, checkpoint={"every_steps": 12}, queue={"url": "redis://nowhere", "max_groups": 13}
    )
    cluster_of(run).train_s = 0.01
    scene.conduct(run)
    assert scene.queue.refused == []
    assert scene.queue.most > 8, "the rollouts ran ahead: the bound was tested"
    commits = [event["step"] for event in scene.events("committed")]
    assert commits == [2, 4, 6, 8, 10, 12], "as rare as the queue permits"
    scene.check_complete(12)


@pytest.mark.parametrize("mishap", ["damage", "lose"])
def test_train_group_that_the_queue_loses_is_made_again(scene: Scene, mishap: str) -> None:
    run = scene.first_life()
    scene.queue.mishaps = {3: mishap}
    scene.conduct(run)
    scene.check_complete()
    issued = Counter(event["index"] for event in scene.events("issued"))
    assert issued[3] == 2 and sum(issued.values()) == 9
    assert scene.rows()[-1]["foreign_entries"] == (mishap == "damage")


def test_train_resume_with_a_damaged_entry_and_foreign_ones_makes_each_group_once(scene: Scene) -> None:
    """The stream holds a damaged group, ids that are no names, and junk under the id of a group to be made."""
    run = scene.first_life()
    cluster = cluster_of(run)

    async def die(groups: list[Any], version: int) -> dict[str, float]:
        while scene.queue.depth() < 4:
            await asyncio.sleep(0.005)
        raise RuntimeError("learner died")

    cluster.learner.train_step = call(die)
    with pytest.raises(RuntimeError, match="learner died"):
        scene.conduct(run)
    queue = scene.queue
    names = sorted(queue.seen)
    assert len(names) == 4
    queue.damage(names[1])
    queue.damage(names[2])
    for name in ("hello", "x-gabc", names[0], names[1]):
        queue.add_foreign(name)
    before = len(scene.events("issued"))
    again = scene.next_life()
    cluster_of(again).play_s = 0.02
    scene.conduct(again)
    scene.check_complete()
    issued = Counter(event["index"] for event in scene.events("issued")[before:])
    assert issued == {1: 1, 2: 1, 4: 1, 5: 1, 6: 1, 7: 1}
    assert scene.rows()[-1]["foreign_entries"] == 6


def test_train_resume_with_a_changed_configuration_says_which_values_and_where(scene: Scene) -> None:
    run = scene.first_life(steps=2)
    scene.conduct(run)
    file = scene.folder / "config.toml"
    original = file.read_text()
    file.write_text(original.replace("steps = 2\n", "steps = 6\n", 1).replace("seed = 0\n", "seed = 5\n", 1))
    with pytest.raises(CheckpointError, match="changed since step 2 was saved: seed = 5, was 0; ") as e:
        scene.conduct(scene.next_life())
    assert str(e.value).startswith(f"{file}: ")
    elsewhere = original.replace("redis://nowhere", "redis://elsewhere")
    divided = elsewhere.replace("zero_stage = 0\n", "zero_stage = 2\n")
    assert original != elsewhere != divided, "where it lives, and how the learner's work is divided, may change"
    file.write_text(divided)
    scene.conduct(scene.next_life())


def test_train_keeps_the_best_checkpoint_of_its_evaluations(scene: Scene) -> None:
    """Step 2 plays best; it was saved for its evaluation, and outlives the newer ones."""

    def won_after_two(cluster: FakeCluster) -> None:
        real = cluster._play

        async def play(spec: TrajectorySpec, replay: tuple[Turn, ...]) -> Trajectory:
            played = await real(spec, replay)
            return replace(played, won=len(cluster.steps_trained) == 2) if spec.sampling == "eval" else played

        cluster.env["env-0"].run = call(play)

    run = scene.first_life(eval={"num_tasks": 2, "every_steps": 1}, checkpoint={"every_steps": 3, "keep_last": 1})
    won_after_two(cluster_of(run))
    scene.conduct(run)
    store = CheckpointStore(scene.folder / "checkpoints", 1)
    assert store.steps() == [2, 4] and store.best() == 2
    assert [event["step"] for event in scene.events("committed")] == [1, 2, 3, 4]


def test_train_without_keep_best_saves_at_its_own_rhythm(scene: Scene) -> None:
    run = scene.first_life(
        eval={"num_tasks": 2, "every_steps": 1}, checkpoint={"every_steps": 3, "keep_last": 1, "keep_best": False}
    )
    scene.conduct(run)
    assert [event["step"] for event in scene.events("committed")] == [3, 4]
    assert CheckpointStore(scene.folder / "checkpoints", 1).steps() == [4]


def stop_once_saved(run: TrainingRun, step: int) -> None:
    """Groups of later steps are begun and never finished; the run is stopped when `step` is saved."""
    cluster = cluster_of(run)
    real = cluster._play

    async def hang(spec: TrajectorySpec, replay: tuple[Turn, ...]) -> Trajectory:
        if spec.sampling == "train" and spec.group_index >= 2 * step:
            while run.state.committed < step:
                await asyncio.sleep(0.005)
            if (spec.group_index, spec.sibling) == (2 * step, 0):  # a second one would not wait for anything
                os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()
        return await real(spec, replay)

    cluster.env["env-0"].run = call(hang)


def test_train_resume_goes_on_from_the_last_accepted_turns_bit_by_bit(scene: Scene) -> None:
    turns = (make_turn(0), make_turn(1))
    run = scene.first_life()
    cluster = cluster_of(run)

    async def live_many(names: list[str]) -> dict[str, tuple[Turn, ...]]:
        return {name: turns for name in names if "-g000004/1/" in name}

    for router in cluster.routers:
        router.live_many = call(live_many)
    stop_once_saved(run, 2)
    with pytest.raises(Stopped):
        scene.conduct(run)
    again = scene.next_life()
    given: dict[tuple[int, int], tuple[Turn, ...]] = {}
    real = cluster_of(again)._play

    async def listen(spec: TrajectorySpec, replay: tuple[Turn, ...]) -> Trajectory:
        if spec.sampling == "train":
            given[spec.group_index, spec.sibling] = replay
        return await real(spec, replay)

    cluster_of(again).env["env-0"].run = call(listen)
    scene.conduct(again)
    scene.check_complete()
    assert sorted(given) == [(index, sibling) for index in range(4, 8) for sibling in range(2)]
    assert_same(given.pop((4, 1)), turns)  # log-probabilities of the behaviour policy included
    assert set(given.values()) == {()}


def test_train_resume_goes_on_with_the_thresholds_that_calibration_had_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The resumed run's η is that of an undisturbed one at every step, and not the η that it began with."""
    courses = []
    for name in ("calm", "stopped"):
        scene = Scene(tmp_path / name, monkeypatch)
        run = scene.first_life(steps=6, calibration={"resampled_share": 0.1}, tds={"eta": 0.05})
        if name == "stopped":
            stop_once_saved(run, 4)
            with pytest.raises(Stopped):
                scene.conduct(run)
            run = scene.next_life()
        scene.conduct(run)
        courses.append([row["tds_eta"] for row in scene.rows()])
    assert courses[0] == courses[1]
    assert len(set(courses[0])) > 3, "η moved: the test shows something"


def test_train_weights_that_arrive_changed_end_the_run_with_their_cause(scene: Scene) -> None:
    run = scene.first_life()

    async def publish(version: int, weights: Any) -> dict[str, Any]:
        raise WeightMismatch(f"inference-0 does not hold the weights of version {version}")

    cluster_of(run).publication.publish = publish
    with pytest.raises(WeightMismatch, match="version 1"):
        scene.conduct(run)
    assert CheckpointStore(scene.folder / "checkpoints", 1).steps() == []


def test_train_says_what_ends_a_life_before_its_parts_stop(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ray that lost its raylet may end the process while they are."""
    run = scene.first_life()
    said: list[str] = []
    monkeypatch.setattr(run.view, "note", said.append)

    async def publish(version: int, weights: Any) -> dict[str, Any]:
        raise WeightMismatch("inference-0 holds others")

    async def stop() -> None:
        assert said[-1] == "this life of the run ends: WeightMismatch: inference-0 holds others"
        said.append("stopped")

    cluster_of(run).publication.publish = publish
    monkeypatch.setattr(run.cluster, "stop", stop)
    with pytest.raises(WeightMismatch):
        scene.conduct(run)
    assert said[-1] == "stopped"
