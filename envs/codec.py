"""Records <-> bytes: what the replay queue and the checkpoints hold of a TrajectoryGroup or of live Turns.

Owns: the envelope (magic, kind, format version, length, checksum), msgpack with arrays as raw bytes, and the
readable JSON form of a trajectory. Called by the replay queue, the checkpoint and the run folder.
Must not know: Redis, files, or who produced a record.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any, TypeVar

import msgspec
import numpy as np

from envs.records import Bool, Candidate, Float32, Int32, Trajectory, TrajectoryGroup, Turn

FORMAT_VERSION = 1
"""Raised by one with every change of a record's fields that an older reader would misread."""

_MAGIC = b"T2PO"
_HEADER = struct.Struct("<4sBBQI")
"""Magic, kind, format version, length of the body, CRC-32 of the body."""
_KIND_NAMES = {1: "trajectory group", 2: "turns"}
_GROUP, _TURNS = 1, 2

_ARRAY_FIELDS = {
    "token_ids": np.dtype(np.int32),
    "logprobs": np.dtype(np.float32),
    "forced": np.dtype(np.bool_),
    "entropy": np.dtype(np.float32),
    "uncertainty": np.dtype(np.float32),
}
_PROMPT_DTYPE = np.dtype(np.int32)

_DTYPES: dict[Any, tuple[np.dtype[Any], str]] = {
    kind: (np.dtype(scalar), np.dtype(scalar).str)
    for kind, scalar in ((Int32, np.int32), (Float32, np.float32), (Bool, np.bool_))
}

Decoded = TypeVar("Decoded")


class CodecError(ValueError):
    """Bytes that are no record of ours, or a record that cannot be written; names what is wrong and where."""


def encode_group(group: TrajectoryGroup) -> bytes:
    """The bytes of a group. Raises CodecError when a field holds what its record does not declare."""
    for trajectory in group.trajectories:
        _check_turns(trajectory.turns, f"trajectory {trajectory.id!r}")
    return _pack(_GROUP, group, f"group {group.id!r}")


def decode_group(data: bytes) -> TrajectoryGroup:
    """The group that `encode_group` wrote; its arrays are read-only views of `data`."""
    return _unpack(_GROUP, data, _group_decoder)


def encode_turns(turns: tuple[Turn, ...]) -> bytes:
    """The bytes of a live trajectory's accepted turns, for a checkpoint."""
    _check_turns(turns, "live turns")
    return _pack(_TURNS, turns, "live turns")


def decode_turns(data: bytes) -> tuple[Turn, ...]:
    """The turns that `encode_turns` wrote; their arrays are read-only views of `data`."""
    return _unpack(_TURNS, data, _turns_decoder)


def trajectory_to_json(trajectory: Trajectory, *, with_tokens: bool = False) -> dict[str, Any]:
    """A trajectory for people and for jq: texts and one number per turn instead of arrays; not measured is null.

    `with_tokens` adds `token_ids` and `token_uncertainty` (M to three digits, null where forced) to each reply.
    """
    return {
        "id": trajectory.id,
        "group": trajectory.group_id,
        "task": _plain(trajectory.task),
        "sibling": trajectory.sibling,
        "attempt": trajectory.attempt,
        "won": trajectory.won,
        "score": trajectory.score,
        "reward": trajectory.total_reward,
        "duration_s": round(trajectory.duration_s, 3),
        "turns": [_turn_to_json(turn, with_tokens) for turn in trajectory.turns],
    }


def _turn_to_json(turn: Turn, with_tokens: bool) -> dict[str, Any]:
    return {
        "observation": turn.observation,
        **({"observation_cut": turn.observation_cut} if turn.observation_cut else {}),
        **_candidate_to_json(turn.accepted, with_tokens),
        "action": turn.action,
        "format_valid": turn.format_valid,
        "valid": turn.valid,
        "reward": turn.reward,
        "done": turn.done,
        "next_observation": turn.next_observation,
        "prompt_tokens": len(turn.prompt_ids),
        "rejected": [_candidate_to_json(candidate, with_tokens) for candidate in turn.rejected],
    }


def _candidate_to_json(candidate: Candidate, with_tokens: bool) -> dict[str, Any]:
    sampled = ~candidate.forced
    tokens = {
        "token_ids": candidate.token_ids.tolist(),
        "token_uncertainty": [_number(round(value, 3)) for value in candidate.uncertainty.tolist()],
    }
    return {
        "reply": candidate.text,
        "tokens": len(candidate.token_ids),
        "forced_tokens": int(candidate.forced.sum()),
        "think_at": candidate.think_at,
        "think_tokens": candidate.num_think_tokens,
        "fired": candidate.fired,
        "fired_at": candidate.fired_at,
        "phi": _number(candidate.phi),
        "gamma": _number(candidate.gamma),
        "entropy": _mean(candidate.entropy[sampled]),
        "uncertainty": _mean(candidate.uncertainty[sampled]),
        "logprob": _mean(candidate.logprobs[sampled]),
        "finish_reason": candidate.finish_reason,
        "seed": candidate.seed,
        "versions": [candidate.min_version, candidate.max_version],
        **(tokens if with_tokens else {}),
    }


def _plain(record: Any) -> Any:
    return msgspec.to_builtins(record)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _mean(values: np.ndarray) -> float | None:
    return _number(float(values.mean(dtype=np.float64))) if len(values) else None


def _check_turns(turns: tuple[Turn, ...], where: str) -> None:
    """Before a group leaves its producer: a wrong array would only be noticed by the consumer, far from its cause."""
    for place, turn in enumerate(turns):
        _check_array(turn.prompt_ids, _PROMPT_DTYPE, where, place, "prompt_ids")
        for candidate in (turn.accepted, *turn.rejected):
            for field, dtype in _ARRAY_FIELDS.items():
                _check_array(getattr(candidate, field), dtype, where, place, field)


def _check_array(array: Any, dtype: np.dtype[Any], where: str, turn: int, field: str) -> None:
    if not isinstance(array, np.ndarray):
        raise CodecError(f"{where}, turn {turn}: {field} is a {type(array).__name__}, must be a numpy array of {dtype}")
    if array.dtype != dtype or array.ndim != 1:
        raise CodecError(
            f"{where}, turn {turn}: {field} is {array.dtype} of shape {array.shape}, must be {dtype} with one dimension"
        )


def _encode_hook(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no type of a record")


def _decode_hook(kind: Any, value: Any) -> Any:
    # `kind` is one of the records' NDArray types; the field's own dtype decides, not the sender's.
    dtype, name = _DTYPES[kind]
    if type(value) is not list or len(value) != 3 or type(value[2]) is not bytes:
        raise ValueError(f"array must be [dtype, [length], bytes], got {type(value).__name__}")
    if value[0] != name:
        raise ValueError(f"array of {value[0]}, must be {name}")
    array = np.frombuffer(value[2], dtype=dtype) if len(value[2]) % dtype.itemsize == 0 else None
    if array is None or value[1] != [len(array)]:
        raise ValueError(f"array of {value[1]} x {dtype.itemsize} bytes has {len(value[2])} bytes")
    return array


_encoder = msgspec.msgpack.Encoder(enc_hook=_encode_hook)
_group_decoder = msgspec.msgpack.Decoder(TrajectoryGroup, dec_hook=_decode_hook)
_turns_decoder = msgspec.msgpack.Decoder(tuple[Turn, ...], dec_hook=_decode_hook)


def _pack(kind: int, record: Any, where: str) -> bytes:
    try:
        body = _encoder.encode(record)
    except (TypeError, ValueError, OverflowError) as error:  # UnicodeEncodeError (a lone surrogate) is a ValueError
        raise CodecError(f"{where}: cannot be written: {error}") from error
    return _HEADER.pack(_MAGIC, kind, FORMAT_VERSION, len(body), zlib.crc32(body)) + body


def _unpack(kind: int, data: bytes, decoder: msgspec.msgpack.Decoder[Decoded]) -> Decoded:
    what = _KIND_NAMES[kind]
    if len(data) < _HEADER.size or data[:4] != _MAGIC:
        raise CodecError(f"not a {what}: {len(data)} bytes that begin with {data[:8]!r}, must begin with {_MAGIC!r}")
    _, found_kind, version, length, checksum = _HEADER.unpack_from(data)
    if version != FORMAT_VERSION:
        raise CodecError(
            f"{what}: format version {version}, this t2po reads {FORMAT_VERSION}; read it with the t2po that wrote it"
        )
    if found_kind != kind:
        raise CodecError(f"not a {what}: the bytes hold {_KIND_NAMES.get(found_kind, f'kind {found_kind}')}")
    body = memoryview(data)[_HEADER.size :]
    if len(body) != length:
        relation = "cut short" if len(body) < length else "too long"
        raise CodecError(f"{what}: {relation}: {len(body)} bytes after the header, which announces {length}")
    if zlib.crc32(body) != checksum:
        raise CodecError(f"{what}: checksum differs: the {length} bytes were changed after they were written")
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise CodecError(f"{what}: {error}") from error
