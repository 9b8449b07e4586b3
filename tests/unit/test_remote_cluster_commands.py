"""Clusters of others: which commands are called, and what is said when something is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from controller.cli import main
from controller.local_cluster.state import ClusterError, Size
from controller.ray_launcher_file import check_file
from controller.remote_cluster import KUBERAY, RAY_FILE, SBATCH, Job, commands, replicas_patch

SIZE = Size(envs=3, inference=2, learners=1)


def words(provider: str, action: str, job: Job | None = None, sized: bool = True) -> list[str]:
    return [" ".join(line) for line in commands(provider, action, job or Job(SIZE), sized)]


def test_kuberay_applies_our_folder_and_sets_the_sizes() -> None:
    apply, patch = words("kuberay", "up")
    assert apply == f"kubectl apply --kustomize {KUBERAY}"
    assert json.loads(patch.partition("--patch=")[2])[0] == {
        "op": "replace",
        "path": "/spec/workerGroupSpecs/0/replicas",
        "value": 3,
    }
    assert len(words("kuberay", "up", sized=False)) == 1
    assert "delete raycluster t2po" in words("kuberay", "down")[0]


def test_groups_of_the_patch_are_in_the_order_of_the_file() -> None:
    text = (KUBERAY / "cluster.yaml").read_text(encoding="utf-8")
    names = [line.split()[-1] for line in text.splitlines() if "groupName:" in line]
    assert names == list(SIZE.items())
    assert [row["value"] for row in json.loads(replicas_patch(SIZE))] == list(SIZE.items().values())


def test_submitted_words_are_quoted() -> None:
    (line,) = commands("kuberay", "submit", Job(SIZE, "alfworld", ("name=a b; rm -rf /",)))
    assert "; rm -rf /" in line[-1]
    assert "'\"'\"'name=a b; rm -rf /'\"'\"'" in line[-1]


def test_slurm_submits_our_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SBATCH_NODES", "4")
    (line,) = words("slurm", "submit", Job(SIZE, "alfworld", ("seed=1",)))
    assert line.startswith("sbatch --nodes=4 --export=ALL,T2PO_HOME=")
    assert line.endswith(f"{SBATCH} alfworld seed=1")
    (line,) = words("slurm", "submit", Job(SIZE, resume="/runs/x"))
    assert "T2PO_RESUME=/runs/x" in line
    assert line.endswith(str(SBATCH))
    monkeypatch.setenv("SBATCH_NODES", "many")
    with pytest.raises(ClusterError, match="SBATCH_NODES = 'many'"):
        words("slurm", "submit", Job(SIZE, "alfworld"))


@pytest.mark.parametrize(("provider", "action"), [("slurm", "up"), ("slurm", "scale"), ("ray", "scale")])
def test_what_a_provider_cannot_do_is_said(
    provider: str, action: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("", encoding="utf-8")
    monkeypatch.setenv(RAY_FILE, str(file))
    with pytest.raises(ClusterError, match=f"^provider {provider}: "):
        words(provider, action)


def test_ray_needs_a_file_of_ones_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(RAY_FILE, raising=False)
    with pytest.raises(ClusterError, match=f"{RAY_FILE} = '': no such file; copy"):
        words("ray", "up")
    file = tmp_path / "cluster.yaml"
    file.write_text("", encoding="utf-8")
    monkeypatch.setenv(RAY_FILE, str(file))
    assert words("ray", "up")[0].endswith(f"up --yes --no-config-cache {file}")
    assert "nohup .venv/bin/t2po train alfworld" in words("ray", "submit", Job(SIZE, "alfworld"))[0]


@pytest.mark.parametrize(("provider", "tool"), [("kuberay", "kubectl"), ("slurm", "sbatch")])
def test_missing_tool_is_named(
    provider: str, tool: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["cluster", "status", "--provider", provider]) == 2
    assert f"provider {provider}: {tool} is not installed" in capsys.readouterr().err


def test_typo_in_a_launcher_file_is_found(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    shipped = SBATCH.parents[1] / "ray" / "cluster.yaml"
    file.write_text(shipped.read_text(encoding="utf-8").replace("max_workers", "most_workers"), encoding="utf-8")
    with pytest.raises(ClusterError, match="not a file for `ray up`: .*most_workers"):
        check_file(file)
