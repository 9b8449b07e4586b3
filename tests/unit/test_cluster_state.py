"""The state file of a local cluster: what is recorded, what is stale, what is refused."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from controller.cli import main
from controller.local_cluster.lifecycle import down, refuse_second
from controller.local_cluster.overview import node_lines, status_lines
from controller.local_cluster.ray_nodes import Actor, Node
from controller.local_cluster.resizing import emptiest
from controller.local_cluster.state import (
    FOLDER_VARIABLE,
    STATE,
    ClusterError,
    ClusterState,
    Raylet,
    Size,
    Submitted,
    live_state,
    read_state,
    write_state,
)
from controller.process_identity import ProcessId

GONE = ProcessId(pid=2**22 + 5, start_ticks=1, boot_id="of another boot")


def here() -> ProcessId:
    process = ProcessId.of(os.getpid())
    assert process is not None
    return process


def state_of(folder: Path, head: ProcessId) -> ClusterState:
    names = [("head", "head"), ("env-0", "env"), ("env-1", "env"), ("inference-0", "inference")]
    raylets = tuple(Raylet(name, role, head if role == "head" else GONE, (6400, 6401), 2) for name, role in names)
    run = Submitted(str(folder / "run"), GONE, str(folder / "run" / "submitted.log"))
    return ClusterState(
        address="127.0.0.1:1", token=str(folder / "token"), temp=str(folder / "temp"), size=Size(envs=2),
        object_store_mb=128, raylets=raylets, run=run,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "cluster"
    place.mkdir()
    monkeypatch.setenv(FOLDER_VARIABLE, str(place))
    return place


def test_state_is_read_as_it_was_written_and_is_private(folder: Path) -> None:
    state = state_of(folder, here())
    write_state(folder, state)
    assert read_state(folder) == state
    assert live_state(folder) == state
    assert stat.S_IMODE((folder / STATE).stat().st_mode) == 0o600


def test_second_up_is_refused_and_says_what_is_up(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_state(folder, state_of(folder, here()))
    assert main(["cluster", "up"]) == 2
    text = capsys.readouterr().err
    assert "a cluster is up already, at 127.0.0.1:1 with envs 2, inference 1, learners 1" in text
    assert "t2po cluster down" in text


def test_stale_state_is_recognised_and_cleared(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = state_of(folder, GONE)
    write_state(folder, state)
    (folder / "token").write_text("secret", encoding="ascii")
    Path(state.temp).mkdir()
    refuse_second(folder)  # nothing is up
    with pytest.raises(ClusterError, match="head of this cluster is gone"):
        live_state(folder)
    assert "whose head is gone" in status_lines(folder)[0]
    assert main(["cluster", "down"]) == 0
    assert "nothing of it was running any more" in capsys.readouterr().out
    assert not folder.exists()
    assert not Path(state.temp).exists()


def test_down_leaves_a_process_alone_that_has_a_recorded_pid_by_chance(folder: Path) -> None:
    me = here()
    write_state(folder, state_of(folder, replace(me, start_ticks=me.start_ticks - 7)))
    assert down(folder, print) == []
    assert me.alive()


@pytest.mark.parametrize("text", ["", "{}", '{"address": 1', '{"raylets": 3}'])
def test_damaged_state_says_what_to_do(folder: Path, text: str) -> None:
    (folder / STATE).write_text(text, encoding="utf-8")
    with pytest.raises(ClusterError, match=f"{STATE}: cannot be read .* then delete the file"):
        read_state(folder)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["up", "envs=0"], "envs = 0: at least 1"),
        (["up", "inference=-2"], "inference = -2: at least 1"),
        (["up", "engines=2"], "'engines=2': there is no such part"),
        (["up", "envs=two"], "'envs=two': must be a whole number"),
        (["up", "envs=1", "envs=2"], "'envs=2': envs is given twice"),
        (["up", "--object-store-mb", "1"], "--object-store-mb 1: at least 100"),
        (["up", "envs=100000"], "are free"),
        (["check", "envs=100000"], "are free"),
        (["scale", "envs=2"], "no cluster is up"),
        (["submit", "alfworld"], "no cluster is up"),
        (["submit"], "name a recipe"),
        (["submit", "alfworld", "--resume", "runs/x"], "name a recipe, or a run"),
        (["down"], "no cluster is recorded here"),
    ],
)
def test_wrong_commands_are_refused_in_one_line_each(
    words: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cluster", *words]) == 2
    text = capsys.readouterr().err
    assert message in text
    assert all(line.startswith("t2po: ") for line in text.splitlines())
    assert not (folder / STATE).exists()


def test_run_that_does_not_exist_is_not_resumed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_state(folder, state_of(folder, here()))
    assert main(["cluster", "submit", "--resume", str(folder / "nothing")]) == 2
    assert "nothing" in capsys.readouterr().err


def test_status_without_a_cluster_says_how_to_start_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cluster", "status"]) == 0
    assert "no cluster is up" in capsys.readouterr().out


def node(state: ClusterState, name: str, alive: bool = True, num_actors: int = 0) -> Node:
    cause = "" if alive else "health check failed"
    return Node(f"id-{name}", f"{state.temp}/{name}", alive, {}, {}, cause, num_actors)


def test_status_names_the_dead_with_cause_and_remedy(folder: Path) -> None:
    me = here()
    state = state_of(folder, me)
    state = replace(state, raylets=tuple(replace(one, process=me) for one in state.raylets))
    nodes = [node(state, "head"), node(state, "env-0", num_actors=1), node(state, "env-1", alive=False)]
    nodes.append(node(state, "inference-0", alive=False))
    nodes.append(node(state, "inference-0"))  # it was started again under the same name
    actors = [
        Actor("EnvActor", "ALIVE", "id-env-0", 1, "01"),
        Actor("InferenceActor", "PENDING_CREATION", "", 0, "01"),
    ]
    lines = node_lines(state, nodes, actors)
    assert lines[0] == "cluster at 127.0.0.1:1: 3 of 4 raylets live"
    assert lines[2].endswith("1 of 2 slots taken, EnvActor")
    assert lines[3].endswith("dead: health check failed")
    assert lines[4].endswith("0 of 2 slots taken")
    assert lines[5].strip() == "not placed yet: 1 InferenceActor"
    assert "dead: env-1; replace with: t2po cluster scale envs=2 inference=1 learners=1" in lines[6]


def test_the_emptiest_raylets_go_first_and_of_those_the_newest(folder: Path) -> None:
    raylets = tuple(Raylet(f"env-{index}", "env", GONE, (), 2) for index in range(4))
    state = replace(state_of(folder, GONE), raylets=raylets)
    size = Size(envs=2)
    assert [one.name for one in emptiest(state, size, {"env-0": 0, "env-1": 1, "env-2": 1, "env-3": 0})] == [
        "env-3",
        "env-0",
    ]
    assert [one.name for one in emptiest(state, size, {})] == ["env-3", "env-2"]
    assert emptiest(state, Size(envs=9), {}) == []
