"""A small simulated run: the real loop among stand-ins trains everything once, in order. No times are judged."""

from __future__ import annotations

import pytest

from bench.simulation.recorded import draw, read_recorded
from bench.simulation.scene import PANEL_TASKS, Measured, Scene, Size, made_panel
from controller.audit import judge_file
from controller.durable_files import read_json_lines
from controller.length_bias import length_bias, lengths_of
from controller.metrics import read_metrics
from controller.task_order import TaskOrder

SIZE = Size(live=200, servers=8, ranks=4, routers=2, steps=3, stretch=0.005, most_turns=5)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scene, Measured]:
    scene = Scene(SIZE, tmp_path_factory.mktemp("simulation"))
    return scene, scene.conduct()


def test_simulation_trains_every_trajectory_once_in_order(played: tuple[Scene, Measured]) -> None:
    scene, _ = played
    order = TaskOrder(made_panel("alfworld", "train").tasks, scene.run.config.seed)
    report = judge_file(scene.path / "audit.jsonl", lambda index: order.task(index)[0].id)
    groups = SIZE.steps * SIZE.groups_per_step
    assert report.problems == []
    assert report.counts() == {"trained": groups, "dropped": 0, "live": 0}
    assert list(report.trajectories.values()) == ["trained"] * (groups * SIZE.group_size)
    trained = [row["group"] for row in read_json_lines(scene.path / "audit.jsonl") if row["event"] == "trained"]
    assert [int(name[-6:]) for name in trained] == list(range(groups))


def test_simulation_loses_no_length(played: tuple[Scene, Measured]) -> None:
    scene, _ = played
    found = length_bias(judge_file(scene.path / "audit.jsonl"), lengths_of(scene.path / "trajectories"))
    assert (found.num_retried, found.num_lost) == (0, 0)
    assert found.num_undisturbed == SIZE.steps * SIZE.groups_per_step * SIZE.group_size


def test_simulation_counts_what_it_did(played: tuple[Scene, Measured]) -> None:
    scene, measured = played
    rows = [step.values for step in read_metrics(scene.path / "metrics.jsonl")]
    assert [row["trajectories"] for row in rows] == [SIZE.groups_per_step * SIZE.group_size] * SIZE.steps
    assert measured.turns == sum(row["accepted_turns"] for row in rows)
    assert SIZE.groups_per_step * SIZE.group_size < measured.most_live <= SIZE.live
    assert 0 < measured.most_in_router <= SIZE.live + 10, "its turns, and a few questions of the controller"
    assert 0.5 <= measured.busiest_router_us / measured.router_us < 1, "both have turns"
    assert max(row["staleness_max"] for row in rows) <= SIZE.staleness
    assert [row["inference_servers"] for row in rows] == [SIZE.servers] * SIZE.steps


def test_simulation_size_keeps_so_many_trajectories_under_way() -> None:
    assert Size(live=10_000, servers=256).groups_per_step * 8 * 2 == 10_000
    assert Size(live=5_000, servers=256, staleness=0).groups_per_step == Size(live=10_000, servers=256).groups_per_step


def test_simulation_draws_from_the_recorded_quantiles() -> None:
    assert [draw([1.0, 3.0, 7.0], share) for share in (0.0, 0.25, 0.5, 0.75, 1.0)] == [1.0, 2.0, 3.0, 5.0, 7.0]
    recorded = read_recorded()
    assert draw(recorded.turns, 0.0) == 3 and draw(recorded.turns, 1.0) == 15
    assert all(list(row) == sorted(row) for row in (recorded.turn_s, recorded.reply_tokens, recorded.train_s))


def test_simulation_panel_is_longer_than_an_epoch_of_the_test() -> None:
    assert len(made_panel("alfworld", "train").tasks) == PANEL_TASKS
