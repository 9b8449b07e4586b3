"""The list of a checkpoint's files with their checksums: written when it is whole, compared before it is used.

Owns: `manifest.json` in a checkpoint's folder, its format. Called by `controller.checkpoint`. Must not know: which
checkpoints there are, what the files hold.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from controller.durable_files import encode_json, write_whole
from envs.disk_sync import sync

FORMAT = 1
MANIFEST = "manifest.json"
_CHUNK = 1 << 20


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or used; names the folder, the cause and the remedy."""


class Damaged(Exception):
    """A checkpoint that is not what was written."""


class FileMark(msgspec.Struct, frozen=True):
    """Size and checksum (BLAKE2b, 16 bytes, hexadecimal) of a file."""

    bytes: int
    blake2b: str


class Manifest(msgspec.Struct, frozen=True):
    """What `manifest.json` says. `files` by their path inside the folder."""

    format: int
    step: int
    policy_version: int
    model_fingerprint: str
    files: dict[str, FileMark]


def write_manifest(folder: Path, step: int, policy_version: int, model_fingerprint: str) -> None:
    """Marks every file below `folder`; each is on the disk afterwards, and the manifest too."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = Manifest(
        format=FORMAT,
        step=step,
        policy_version=policy_version,
        model_fingerprint=model_fingerprint,
        files={str(path.relative_to(folder)): _mark_on_disk(path) for path in files},
    )
    write_whole(folder / MANIFEST, msgspec.json.format(encode_json(manifest), indent=1) + b"\n")


def check_manifest(folder: Path, model_fingerprint: str) -> Manifest:
    """The manifest of `folder`, every file compared with its mark.

    Raises Damaged when a file is not what was written, CheckpointError when the checkpoint is of another format or
    (where `model_fingerprint` is not empty) model, and what reading raises.
    """
    raw = (folder / MANIFEST).read_bytes()
    found = msgspec.json.decode(raw)
    version = found.get("format") if isinstance(found, dict) else None
    if isinstance(version, int) and version != FORMAT:
        raise CheckpointError(
            f"{folder}: has format {version}, this t2po reads {FORMAT}; resume with the t2po that wrote it"
        )
    manifest = msgspec.json.decode(raw, type=Manifest)
    if model_fingerprint and manifest.model_fingerprint != model_fingerprint:
        raise CheckpointError(
            f"{folder}: is of another model ({manifest.model_fingerprint or 'unnamed'}, this run has "
            f"{model_fingerprint}); set model to the one that the run began with, or begin a new run"
        )
    for name, mark in manifest.files.items():
        _compare(folder / name, mark)
    return manifest


def _mark_on_disk(path: Path) -> FileMark:
    """Size and checksum of a file, which is on the disk afterwards."""
    sync(path)
    return FileMark(bytes=path.stat().st_size, blake2b=_checksum(path))


def _compare(path: Path, mark: FileMark) -> None:
    size = path.stat().st_size
    if size != mark.bytes:
        raise Damaged(f"{path} has {size} bytes, {mark.bytes} were written")
    if _checksum(path) != mark.blake2b:
        raise Damaged(f"{path}: checksum differs, its content was changed")


def _checksum(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
