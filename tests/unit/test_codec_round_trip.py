"""The codec: a round trip is exact, and bytes that are not ours are named, never half read."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
import struct
import zlib
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from envs.codec import (
    CodecError,
    decode_group,
    decode_turns,
    encode_group,
    encode_turns,
    trajectory_to_json,
)
from envs.records import Candidate, SignalRange, Task, Trajectory, TrajectoryGroup, Turn

FLOATS = st.floats(allow_nan=True, allow_infinity=True)
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
NUMBERS = st.integers(-(2**31), 2**31 - 1)


def array(dtype: Any, length: int) -> st.SearchStrategy[np.ndarray]:
    return npst.arrays(dtype, length)


@st.composite
def candidates(draw: st.DrawFn) -> Candidate:
    length = draw(st.integers(0, 6))
    versions = sorted(draw(st.tuples(st.integers(0, 9), st.integers(0, 9))))
    return Candidate(
        token_ids=draw(array(np.int32, length)),
        logprobs=draw(array(np.float32, length)),
        forced=draw(array(np.bool_, length)),
        entropy=draw(array(np.float32, length)),
        uncertainty=draw(array(np.float32, length)),
        text=draw(TEXT),
        phi=draw(FLOATS),
        gamma=draw(FLOATS),
        kept=draw(st.booleans()),
        fired=draw(st.sampled_from(["", "uncertainty", "cap"])),
        fired_at=draw(st.integers(-1, 500)),
        num_think_tokens=draw(st.integers(0, 500)),
        finish_reason=draw(st.sampled_from(["stop", "length"])),
        seed=draw(st.integers(0, 2**31 - 1)),
        min_version=versions[0],
        max_version=versions[1],
        range_after=SignalRange(entropy_min=draw(FLOATS), entropy_max=draw(FLOATS)),
    )


@st.composite
def turns(draw: st.DrawFn) -> Turn:
    return Turn(
        prompt_ids=draw(array(np.int32, draw(st.integers(1, 5)))),
        accepted=draw(candidates()),
        rejected=tuple(draw(st.lists(candidates(), max_size=2))),
        observation=draw(TEXT),
        action=draw(TEXT),
        format_valid=draw(st.booleans()),
        valid=draw(st.booleans()),
        reward=draw(st.floats(allow_nan=False, allow_infinity=False)),
        done=draw(st.booleans()),
        next_observation=draw(TEXT),
    )


@st.composite
def groups(draw: st.DrawFn) -> TrajectoryGroup:
    task = Task(
        env="alfworld", panel=draw(TEXT), index=draw(NUMBERS), id=draw(TEXT), kind=draw(TEXT), seed=draw(NUMBERS)
    )
    trajectories = tuple(
        Trajectory(
            id=draw(TEXT),
            group_id="g",
            task=task,
            sibling=sibling,
            attempt=draw(st.integers(0, 3)),
            turns=tuple(draw(st.lists(turns(), min_size=1, max_size=2))),
            won=draw(st.booleans()),
            duration_s=draw(st.floats(0, 1e6)),
        )
        for sibling in range(draw(st.integers(0, 2)))
    )
    return TrajectoryGroup(id="g", index=draw(st.integers(0, 2**40)), task=task, trajectories=trajectories)


def assert_same(left: Any, right: Any) -> None:
    """Equal to the last bit: arrays by bytes and dtype, NaN equal to NaN."""
    assert type(left) is type(right)
    if isinstance(left, np.ndarray):
        assert (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes())
    elif dataclasses.is_dataclass(left):
        for field in dataclasses.fields(left):
            assert_same(getattr(left, field.name), getattr(right, field.name))
    elif isinstance(left, tuple):
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert_same(a, b)
    elif isinstance(left, float):
        assert struct.pack("<d", left) == struct.pack("<d", right) or (math.isnan(left) and math.isnan(right))
    else:
        assert left == right


def a_group() -> TrajectoryGroup:
    nan = np.float32(np.nan)
    candidate = Candidate(
        token_ids=np.array([5, 6, 7], np.int32),
        logprobs=np.array([-0.5, 0.0, -0.25], np.float32),
        forced=np.array([False, True, False]),
        entropy=np.array([1.5, nan, 0.5], np.float32),
        uncertainty=np.array([0.5, nan, 0.25], np.float32),
        text="<think>x</think><action>look</action>",
        phi=0.25,
        gamma=math.nan,
        kept=True,
        fired="uncertainty",
        fired_at=1,
        num_think_tokens=2,
        finish_reason="stop",
        seed=1,
        min_version=3,
        max_version=4,
        range_after=SignalRange(),
    )
    turn = Turn(
        prompt_ids=np.array([1, 2], np.int32),
        accepted=candidate,
        rejected=(candidate,),
        observation="You see a desk.",
        action="look",
        format_valid=True,
        valid=True,
        reward=10.0,
        done=True,
        next_observation="Won — “yes”.",
    )
    task = Task(env="alfworld", panel="train", index=0, id="t", kind="look")
    trajectory = Trajectory(
        id="r/g/0/0", group_id="g", task=task, sibling=0, attempt=0, turns=(turn,), won=True, duration_s=1.5
    )
    return TrajectoryGroup(id="g", index=0, task=task, trajectories=(trajectory,))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(groups())
def test_group_round_trip_is_exact(group: TrajectoryGroup) -> None:
    data = encode_group(group)
    assert_same(decode_group(data), group)
    assert encode_group(decode_group(data)) == data


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(groups())
def test_group_is_the_same_after_pickling(group: TrajectoryGroup) -> None:
    assert_same(pickle.loads(pickle.dumps(group, protocol=5)), group)


def test_records_pickle_without_asking_for_their_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    """What made it slow: `dataclasses.fields`, of every record, each time."""
    group = a_group()

    def slow(record: Any) -> Any:
        raise AssertionError(f"the fields of {type(record).__name__} were asked for")

    with monkeypatch.context() as patch:
        patch.setattr(dataclasses, "fields", slow)
        again = pickle.loads(pickle.dumps(group, protocol=5))
    assert_same(again, group)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(turns(), max_size=3))
def test_turns_round_trip_is_exact(some: list[Turn]) -> None:
    assert_same(decode_turns(encode_turns(tuple(some))), tuple(some))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_foreign_bytes(data: bytes) -> None:
    with pytest.raises(CodecError, match="not a trajectory group"):
        decode_group(data)


def test_every_cut_is_noticed() -> None:
    data = encode_group(a_group())
    for length in range(len(data)):
        with pytest.raises(CodecError, match=r"cut short|not a trajectory group"):
            decode_group(data[:length])
    with pytest.raises(CodecError, match="too long"):
        decode_group(data + b"x")


def test_every_changed_byte_is_noticed() -> None:
    data = encode_group(a_group())
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 0x40
        with pytest.raises(CodecError):
            decode_group(bytes(changed))


def test_other_version_and_other_kind_are_named() -> None:
    data = bytearray(encode_group(a_group()))
    data[5] = 9
    with pytest.raises(CodecError, match="format version 9, this t2po reads 1"):
        decode_group(bytes(data))
    with pytest.raises(CodecError, match="hold turns"):
        decode_group(encode_turns(a_group().trajectories[0].turns))


def test_well_formed_envelope_with_wrong_fields() -> None:
    def envelope(value: Any) -> bytes:
        body = msgspec.msgpack.encode(value)
        return struct.pack("<4sBBQI", b"T2PO", 1, 1, len(body), zlib.crc32(body)) + body

    with pytest.raises(CodecError, match="missing required field `index`"):
        decode_group(envelope({"id": "g"}))
    tree = msgspec.msgpack.decode(encode_group(a_group())[18:])
    tree["trajectories"][0]["turns"][0]["prompt_ids"] = ["<i4", [3], b"12345678"]
    with pytest.raises(CodecError, match=r"array of \[3\] x 4 bytes has 8 bytes.*trajectories.*turns.*prompt_ids"):
        decode_group(envelope(tree))
    tree["trajectories"][0]["turns"][0]["prompt_ids"] = ["|O", [1], b"12345678"]
    with pytest.raises(CodecError, match=r"array of \|O, must be <i4"):
        decode_group(envelope(tree))
    tree["trajectories"][0]["turns"][0]["prompt_ids"] = [1, 2, 3]
    with pytest.raises(CodecError, match="array must be"):
        decode_group(envelope(tree))


def test_record_checks_hold_on_decoding() -> None:
    """`__post_init__` runs on decoding too: a group with a missing sibling is refused."""
    group = a_group()
    trajectory = dataclasses.replace(group.trajectories[0], sibling=0)
    data = encode_group(dataclasses.replace(group, trajectories=(trajectory,)))
    body = data[18:].replace(b"\xa7sibling\x00", b"\xa7sibling\x01")
    with pytest.raises(CodecError, match=r"siblings must be 0\.\.G-1"):
        decode_group(struct.pack("<4sBBQI", b"T2PO", 1, 1, len(body), zlib.crc32(body)) + body)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("logprobs", np.zeros(3), "turn 0: logprobs is float64"),
        ("token_ids", np.zeros(3, np.int64), "turn 0: token_ids is int64"),
        ("forced", [False, True, False], "turn 0: forced is a list"),
        ("entropy", np.zeros((3, 1), np.float32), r"turn 0: entropy is float32 of shape \(3, 1\)"),
    ],
)
def test_wrong_arrays_are_refused_by_the_producer(field: str, value: Any, message: str) -> None:
    group = a_group()
    trajectory = group.trajectories[0]
    turn = trajectory.turns[0]
    turn = dataclasses.replace(turn, accepted=dataclasses.replace(turn.accepted, **{field: value}))
    bad = dataclasses.replace(group, trajectories=(dataclasses.replace(trajectory, turns=(turn,)),))
    with pytest.raises(CodecError, match=message):
        encode_group(bad)


def test_numpy_scalars_and_lone_surrogates() -> None:
    group = a_group()
    turn = group.trajectories[0].turns[0]
    scalar = dataclasses.replace(turn, reward=np.float64(1.5), valid=np.bool_(True))  # type: ignore[arg-type]
    [decoded] = decode_turns(encode_turns((scalar,)))
    assert (decoded.reward, decoded.valid) == (1.5, True)
    with pytest.raises(CodecError, match="surrogates"):
        encode_turns((dataclasses.replace(turn, observation="\ud800"),))


def test_arrays_with_strides_and_foreign_order() -> None:
    turn = a_group().trajectories[0].turns[0]
    [decoded] = decode_turns(encode_turns((dataclasses.replace(turn, prompt_ids=np.arange(10, dtype=np.int32)[::3]),)))
    assert decoded.prompt_ids.tolist() == [0, 3, 6, 9]
    with pytest.raises(CodecError, match="prompt_ids is >i4"):
        encode_turns((dataclasses.replace(turn, prompt_ids=np.arange(3, dtype=">i4")),))


def test_json_is_strict_and_readable() -> None:
    tree = trajectory_to_json(a_group().trajectories[0])
    turn = json.loads(json.dumps(tree, allow_nan=False))["turns"][0]
    assert (turn["reply"], turn["action"], turn["gamma"], turn["phi"]) == (
        "<think>x</think><action>look</action>",
        "look",
        None,
        0.25,
    )
    assert (turn["tokens"], turn["forced_tokens"], turn["entropy"], turn["uncertainty"]) == (3, 1, 1.0, 0.375)
    assert turn["rejected"][0]["versions"] == [3, 4]
    assert tree["task"]["kind"] == "look"
    assert "token_ids" not in turn


def test_json_with_tokens_has_m_of_each_and_null_where_forced() -> None:
    trajectory = a_group().trajectories[0]
    turn = json.loads(json.dumps(trajectory_to_json(trajectory, with_tokens=True), allow_nan=False))["turns"][0]
    accepted = trajectory.turns[0].accepted
    assert turn["token_ids"] == accepted.token_ids.tolist()
    assert [value is None for value in turn["token_uncertainty"]] == accepted.forced.tolist()
    assert "token_ids" in turn["rejected"][0]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(groups())
def test_json_never_holds_nan(group: TrajectoryGroup) -> None:
    for trajectory in group.trajectories:
        json.dumps(trajectory_to_json(trajectory), allow_nan=False)
