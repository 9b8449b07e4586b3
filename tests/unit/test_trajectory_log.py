"""The trajectory files: whole lines, tokens of the first groups alone."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from controller.trajectory_log import write_trajectories
from tests.fakes import make_group


def test_trajectory_log_holds_the_tokens_of_the_first_groups_alone(tmp_path: Path) -> None:
    groups = [make_group(index) for index in range(3)]
    path = write_trajectories(tmp_path, 7, groups, token_groups=1)
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    assert [row["id"] for row in rows] == [one.id for group in groups for one in group.trajectories]
    with_tokens = [row["group"] for row in rows if "token_ids" in row["turns"][0]]
    assert set(with_tokens) == {groups[0].id}
