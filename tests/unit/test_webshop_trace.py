"""Traces: every step as the original answers it, and episodes that cannot be read are named by their line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from controller.cli import main
from envs.data_folder import DataError
from envs.panel import load_panel
from envs.trace import trace_lines
from envs.webshop.official import fetch_webshop
from envs.webshop.tasks import goal_of
from envs.webshop.trace import trace_data, trace_webshop
from tests.unit.webshop_records import ODD_RECORDS, tag_words

BUY = ["search[orlin desk lamp]", "click[b0lamp0001]", "click[buy now]", "click[buy now]", "search[chair]"]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fetch_webshop(ODD_RECORDS, tmp_path_factory.mktemp("data"), make_tagger=lambda: tag_words).folder


def trace(stored: Path, *episodes: Any, **options: Any) -> list[dict[str, Any]]:
    lines = [each if isinstance(each, str) else json.dumps(each) for each in episodes]
    return list(trace_webshop(stored, 233, lines, "episodes.jsonl", **options))


def test_steps_of_an_episode(stored: Path) -> None:
    goals = trace(stored, *({"task": str(place), "actions": []} for place in range(41)))
    task = next(each["task"] for each in goals if "Find me dimmable, easy clean" in each["observation"])
    records = trace(stored, {"task": task, "actions": BUY})
    assert {each["task"] for each in records} == {task}
    assert [each["step"] for each in records if each["done"]] == [3] and len(records) == 6
    assert records[0]["admissible"] == ["search"] and records[2]["admissible"][:2] == ["back to search", "< prev"]
    assert list(records[0]) == ["task", "step", "observation", "admissible", "reward", "task_score", "done"]
    assert "breakdown" in records[3] and "breakdown" not in records[4]
    assert 0 < records[3]["task_score"] < 1 and records[3]["reward"] == 0.0 and records[4]["task_score"] == 0.0
    assert records[3]["admissible"] == records[4]["admissible"] == [] and records[4]["observation"].startswith("Thank")
    assert "Page 1" in records[5]["observation"]  # the shop stays open, as the original's does
    assert json.loads(json.dumps(records)) == records


def test_a_perfect_purchase_gives_ten(stored: Path) -> None:
    goals = trace(stored, *({"task": place, "actions": []} for place in range(41)))
    place = next(each["task"] for each in goals if "weather proof" in each["observation"])
    instruction = goals[place]["observation"].split(" [SEP] ")[2]
    color = instruction.split("color: ")[1].split(",")[0]
    chairs = [f"b0chair{number:03d}" for number in range(3)]
    episodes = [
        {
            "task": place,
            "actions": ["search[chair garden rocking stool]", f"click[{asin}]", f"click[{color}]", "click[buy now]"],
        }
        for asin in chairs
    ]
    last = [each for each in trace(stored, *episodes) if each["done"]]
    assert [each["reward"] for each in last if each["task_score"] == 1.0] == [10.0]


def test_a_task_is_a_place_as_number_or_text(stored: Path) -> None:
    one, other = trace(stored, {"task": 3, "actions": []}, "", {"task": "3", "actions": []})
    assert one["task"] == 3 and other["task"] == "3" and one["observation"] == other["observation"]


def test_modes_and_goals_that_people_wrote(stored: Path) -> None:
    (record,) = trace(stored, {"task": 0, "actions": []}, observation_mode="text_rich")
    assert "[button] Search [button_]" in record["observation"]
    records = trace(stored, {"task": 2, "actions": BUY[:2]}, human_goals=True, show_attrs=True)
    assert "attributes" in records[2]["admissible"]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("{", "line 2: not JSON"),
        ("[]", 'line 2: "task" is None'),
        ({"task": True, "actions": []}, '"task" is True'),
        ({"task": -1, "actions": []}, '"task" is -1'),
        ({"task": 1.5, "actions": []}, '"task" is 1.5'),
        ({"task": "\u0663", "actions": []}, '"task" is'),
        ({"task": "9" * 5000, "actions": []}, '"task" is'),
        ({"task": 41, "actions": []}, "line 2: goal 41 of 41 synthetic goals"),
        ({"task": 1, "actions": "click"}, '"actions" is'),
        ({"task": 1, "actions": [1]}, '"actions" is'),
        ({"task": 1}, '"actions" is None'),
    ],
)
def test_damaged_episodes_are_named(stored: Path, line: Any, named: str) -> None:
    with pytest.raises(DataError, match=f"episodes.jsonl, .*{named}" if "line" in named else named):
        trace(stored, {"task": 1, "actions": []}, line)


def test_episodes_come_from_a_file(stored: Path, tmp_path: Path) -> None:
    path = tmp_path / "episodes.jsonl"
    path.write_text('{"task": 1, "actions": ["search[lamp]"]}\n')
    assert len(list(trace_data(stored, path))) == 2
    with pytest.raises(DataError, match="nowhere.jsonl.*JSON lines"):
        list(trace_data(stored, tmp_path / "nowhere.jsonl"))
    path.write_bytes(b"\xff")
    with pytest.raises(DataError, match="JSON lines"):
        list(trace_data(stored, path))


def test_a_panels_task_gives_the_same_records_as_its_place_in_the_files(stored: Path) -> None:
    panel = load_panel("webshop", "official-test", stored.parents[1])
    assert len(panel.tasks) == 41
    bought = 0
    for task in panel.tasks:
        line = json.dumps({"task": task.id, "actions": BUY})
        records = list(trace_lines(panel, [line], "episodes.jsonl", stored.parents[1]))
        assert records == trace(stored, line)
        bought += sum("breakdown" in each for each in records)
    assert bought


def test_the_command_prints_score_and_breakdown_of_a_panels_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = load_panel("webshop", "unseen").tasks[0]
    _, product = goal_of(task)
    actions = [f"search[{product.title}]", f"click[{product.asin}]", "click[buy now]"]
    path = tmp_path / "episodes.jsonl"
    path.write_text(json.dumps({"task": task.id, "actions": actions}) + "\n")
    assert main(["env", "trace", "webshop", "--panel", "unseen", "--episodes", str(path)]) == 0
    first, *_, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert list(first) == ["task", "step", "observation", "admissible", "reward", "task_score", "done"]
    assert first["admissible"] == ["search"] and first["task_score"] == 0.0
    assert last["done"] and 0 < last["task_score"] <= 1 and last["breakdown"]
