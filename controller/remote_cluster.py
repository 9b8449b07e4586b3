"""Clusters that others run: Kubernetes, machines by Ray's launcher, Slurm. Our files, their tools.

Owns: which command each action is with each provider, and what is missing. Called by `controller.cli_cluster`. Must not
know: what is in the files (`deploy/`), how the tools work.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from controller.local_cluster.state import ClusterError, Size

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
KUBERAY = DEPLOY / "kuberay"
SBATCH = DEPLOY / "slurm" / "t2po.sbatch"
RAY_FILE = "T2PO_RAY_CLUSTER"
"""Names a filled-in copy of deploy/ray/cluster.yaml."""
LAST_JOB = "slurm-job"
TIMEOUT_S = 3600.0

TOOLS = {
    "kuberay": ("kubectl", "install kubectl and name a cluster with the KubeRay operator in its configuration"),
    "ray": ("ray", "run make setup"),
    "slurm": ("sbatch", "log in to a machine of the Slurm cluster"),
}


@dataclass(frozen=True, slots=True)
class Job:
    """What a person asked for, of any provider."""

    size: Size
    recipe: str = ""
    changes: tuple[str, ...] = ()
    resume: str = ""


def act(provider: str, action: str, options: argparse.Namespace, size: Size | None) -> int:
    """Runs the provider's commands; the exit status of the first that fails, 2 when the tool or a file is missing."""
    job = Job(size or Size(), getattr(options, "recipe", None) or "", tuple(getattr(options, "changes", ())),
              getattr(options, "resume", None) or "")  # fmt: skip
    sized = bool(getattr(options, "sizes", []))
    lines = commands(provider, action, job, sized)
    require_tool(provider)
    for line in lines:
        print(f"$ {shlex.join(line)}", flush=True)
        try:
            done = subprocess.run(line, timeout=TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise ClusterError(f"{shlex.join(line)}: no end within {TIMEOUT_S:g} s") from error
        if done.returncode:
            raise ClusterError(f"{shlex.join(line)}: ended with {done.returncode}; the lines above say why")
    return 0


def require_tool(provider: str) -> None:
    """ClusterError when the provider's program is not here."""
    tool, remedy = TOOLS[provider]
    if shutil.which(tool, path=_path()) is None:
        raise ClusterError(f"provider {provider}: {tool} is not installed: {remedy}")


def commands(provider: str, action: str, job: Job, sized: bool = True) -> list[list[str]]:
    """What is called, in order. ClusterError for what the provider cannot do. Pure but for the environment."""
    return {"kuberay": _kuberay, "ray": _ray, "slurm": _slurm}[provider](action, job, sized)


def _kuberay(action: str, job: Job, sized: bool) -> list[list[str]]:
    kubectl = ["kubectl", "--namespace", "t2po"]
    patch = ["patch", "raycluster", "t2po", "--type=json", f"--patch={replicas_patch(job.size)}"]
    if action == "up":
        lines = [["kubectl", "apply", "--kustomize", str(KUBERAY)]]
        return [*lines, [*kubectl, *patch]] if sized else lines
    if action == "check":
        return [
            ["kubectl", "get", "crd", "rayclusters.ray.io"],
            ["kubectl", "apply", "--dry-run=server", "--kustomize", str(KUBERAY)],
        ]
    if action == "status":
        return [[*kubectl, "get", "raycluster,pods,pvc", "--show-labels=false"]]
    if action == "scale":
        if not sized:
            raise ClusterError("scale: say which, for example envs=4; the operator replaces dead pods by itself")
        return [[*kubectl, *patch]]
    if action == "submit":
        words = ["t2po", *_train(job), *([] if job.resume else ["runs_dir=/runs"])]
        script = f"nohup {shlex.join(words)} >> /runs/submitted.log 2>&1 & echo started: see /runs/submitted.log"
        pod = "$(kubectl --namespace t2po get pod --selector=ray.io/cluster=t2po,ray.io/node-type=head --output=name)"
        return [["sh", "-c", f"kubectl --namespace t2po exec {pod} -- sh -c {shlex.quote(script)}"]]
    return [[*kubectl, "delete", "raycluster", "t2po", "--ignore-not-found", "--wait=true", "--timeout=300s"]]


def replicas_patch(size: Size) -> str:
    """The groups of deploy/kuberay/cluster.yaml, in their order."""
    counts = [size.envs, size.inference, size.learners]
    changes = (
        f'{{"op": "replace", "path": "/spec/workerGroupSpecs/{index}/replicas", "value": {count}}}'
        for index, count in enumerate(counts)
    )
    return f"[{', '.join(changes)}]"


def _ray(action: str, job: Job, sized: bool) -> list[list[str]]:
    file = os.environ.get(RAY_FILE, "")
    if not file or not Path(file).expanduser().is_file():
        raise ClusterError(
            f"provider ray: {RAY_FILE} = {file!r}: no such file; copy {DEPLOY / 'ray' / 'cluster.yaml'}, fill in your "
            "machines, and name the copy there"
        )
    path = str(Path(file).expanduser().absolute())
    ray = shutil.which("ray", path=_path()) or "ray"
    if action == "up":
        return [[ray, "up", "--yes", "--no-config-cache", path]]
    if action == "check":
        return [[sys.executable, "-m", "controller.ray_launcher_file", path]]
    if action == "status":
        secret = "RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=~/.t2po-ray-token"
        return [[ray, "exec", path, f"cd ~/t2po && {secret} .venv/bin/ray status"]]
    if action == "scale":
        raise ClusterError(
            f"provider ray: the machines are those in {path}: change worker_ips there, then t2po cluster up"
        )
    if action == "submit":
        words = shlex.join(_train(job))
        environment = "RAY_AUTH_TOKEN_PATH=$HOME/.t2po-ray-token RAY_ADDRESS=127.0.0.1:6379"
        begin = f"cd ~/t2po && {environment} nohup .venv/bin/t2po {words}"
        script = f"{begin} >> submitted.log 2>&1 & echo started: see submitted.log"
        return [[ray, "exec", path, script]]
    return [[ray, "down", "--yes", path]]


def _slurm(action: str, job: Job, sized: bool) -> list[list[str]]:
    if action == "up":
        raise ClusterError(
            "provider slurm: a cluster is a job of its own there, started with its run: t2po cluster submit --provider "
            "slurm RECIPE"
        )
    if action == "check":
        return [["sinfo"], ["sbatch", "--test-only", "--nodes=1", str(SBATCH), "alfworld"]]
    if action == "status":
        return [["squeue", "--me", "--name=t2po"]]
    if action == "scale":
        raise ClusterError(
            "provider slurm: a job keeps its nodes; end it (t2po cluster down --provider slurm) and go on with more: "
            "SBATCH_NODES=N t2po cluster submit --provider slurm --resume RUN. Actors within its places: t2po scale RUN"
        )
    if action == "submit":
        nodes = os.environ.get("SBATCH_NODES", "1")
        if not nodes.isdecimal() or int(nodes) < 1:
            raise ClusterError(f"SBATCH_NODES = {nodes!r}: a number of nodes, at least 1")
        resume = f",T2PO_RESUME={Path(job.resume).absolute()}" if job.resume else ""
        words = [] if job.resume else [job.recipe, *job.changes]
        export = f"--export=ALL,T2PO_HOME={DEPLOY.parent}{resume}"
        return [["sbatch", f"--nodes={nodes}", export, str(SBATCH), *words]]
    return [["scancel", "--me", "--name=t2po", "--signal=TERM", "--full"]]


def _train(job: Job) -> Sequence[str]:
    if job.resume:
        return ["train", "--resume", job.resume]
    return ["train", job.recipe, "cluster.address=auto", *job.changes]


def _path() -> str:
    """The programs of our own environment too, which need not be in PATH."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
