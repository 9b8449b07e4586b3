"""Which trajectories a page shows, and in which form."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.report.collection import collect
from controller.report.excerpt import Strings, compact, excerpt_of, spread
from controller.report.token_texts import Piece
from envs.codec import trajectory_to_json
from tests.report_runs import THOUGHT, make_groups, make_run


def rows(num_groups: int = 2, with_tokens: tuple[int, ...] = ()) -> list[dict[str, Any]]:
    return [
        trajectory_to_json(one, with_tokens=number in with_tokens)
        for number, group in enumerate(make_groups(1, num_groups))
        for one in group.trajectories
    ]


def one_a_byte(ids: Any) -> list[Piece]:
    return [Piece(f"t{number}", 1) for number in ids]


@given(st.integers(1, 200), st.integers(1, 200))
def test_steps_are_spread_evenly_and_end_with_the_last(total: int, count: int) -> None:
    steps = list(range(1, total + 1))
    chosen = spread(steps, count)
    assert len(chosen) == len(set(chosen)) == min(count, total)
    assert chosen == sorted(chosen) and chosen[-1] == total
    gaps = [after - before for before, after in itertools.pairwise(chosen)]
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_no_step_is_chosen_where_none_is_wanted_or_there() -> None:
    assert spread([1, 2], 0) == [] and spread([], 3) == []


def test_trajectories_are_shown_until_the_budget_is_used_those_with_tokens_first() -> None:
    given_ = rows(4, with_tokens=(2,))
    strings = Strings()
    whole = excerpt_of(1, given_, one_a_byte, strings, 10**9)
    assert len(whole.shown) == whole.num_trajectories == 12 and whole.num_groups == 4
    written = len(json.dumps([whole.shown, strings.texts], ensure_ascii=False, separators=(",", ":")).encode())
    assert abs(whole.num_bytes - written) < 0.02 * written + 64

    less = Strings()
    part = excerpt_of(1, given_, one_a_byte, less, whole.num_bytes // 2)
    assert 3 <= len(part.shown) < 12 and part.num_bytes <= whole.num_bytes // 2
    assert {one["group"] for one in part.shown} >= {given_[6]["group"]}
    assert less.size == sum(len(json.dumps(text, ensure_ascii=False).encode()) + 1 for text in less.texts)
    shown = json.dumps(part.shown)
    assert max(turn["saw"] for one in part.shown for turn in one["turns"]) < len(less.texts), shown


def test_one_trajectory_is_shown_however_large_it_is() -> None:
    assert len(excerpt_of(1, rows(), None, Strings(), 0).shown) == 1


def test_reply_holds_pieces_m_and_what_was_forced() -> None:
    strings = Strings()
    won = compact(rows(with_tokens=(0,))[0], one_a_byte, strings)
    assert won["won"] and won["interventions"] == {"uncertainty": 1, "rejected": 0}
    reply = won["turns"][1]["reply"]
    assert (reply["fired"], reply["at"], reply["forced"]) == ("uncertainty", 7, 3)
    assert len(reply["pieces"]) == len(reply["m"]) == reply["tokens"] and "spans" not in reply and "text" not in reply
    assert reply["m"][7:10] == [-1, -1, -1] and min(reply["m"][:7]) == 0 and reply["m"][-1] == 1000
    thrown = compact(rows(with_tokens=(0,))[1], one_a_byte, strings)
    assert thrown["interventions"] == {"rejected": 1}
    assert thrown["turns"][1]["rejected"][0]["gamma"] == pytest.approx(0.001)


def test_reply_without_tokens_or_tokenizer_is_text() -> None:
    for row, pieces in ((rows()[0], one_a_byte), (rows(with_tokens=(0,))[0], None)):
        strings = Strings()
        reply = compact(row, pieces, strings)["turns"][0]["reply"]
        assert strings.texts[reply["text"]] == THOUGHT and "pieces" not in reply


def test_rows_of_another_version_are_shown_with_what_they_have() -> None:
    strings = Strings()
    assert compact({}, one_a_byte, strings)["turns"] == []
    odd = {
        "turns": [{"reply": "hm", "token_ids": "?", "phi": float("nan"), "rejected": [3]}, 4],
        "task": "x",
        "reward": None,
    }
    found = compact(odd, one_a_byte, strings)
    assert len(found["turns"]) == 1 and found["turns"][0]["reply"]["phi"] is None and found["reward"] is None
    assert strings.texts[found["turns"][0]["reply"]["text"]] == "hm"


def test_page_of_a_long_run_stays_within_its_size(tmp_path: Path) -> None:
    path = make_run(tmp_path, num_steps=12)
    tree = collect([path], num_steps=6, budget=20_000)
    assert [one["step"] for one in tree["runs"][0]["excerpt"]["steps"]] == spread(list(range(1, 13)), 6)
    shown = [len(one["shown"]) for one in tree["runs"][0]["excerpt"]["steps"]]
    assert all(1 <= count < 6 for count in shown)
    assert tree["runs"][0]["excerpt"]["steps_written"] == 12
    assert len(json.dumps([tree["runs"][0]["excerpt"], tree["strings"]], ensure_ascii=False).encode()) < 40_000
