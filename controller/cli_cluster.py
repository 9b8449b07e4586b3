"""The commands `t2po cluster up|status|scale|submit|down|check`.

Owns: their arguments and what they print. Called by `controller.cli`. Must not know: how a cluster is brought up.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

PROVIDERS = ("local", "kuberay", "ray", "slurm")
_SIZES = "envs=N inference=N learners=N: raylets of each role"


def add_cluster_commands(commands: Any) -> None:
    """Adds the commands to argparse's list of subcommands."""
    cluster = commands.add_parser("cluster", help="a cluster for runs: bring up, look, scale, submit, take down")
    actions = cluster.add_subparsers(title="actions", metavar="ACTION", required=True)
    up = actions.add_parser("up", help="check the machine, then start a head and raylets by role")
    up.add_argument("sizes", nargs="*", metavar="PART=N", help=_SIZES)
    up.add_argument(
        "--object-store-mb", type=int, default=1024, metavar="MB",
        help="memory that each raylet may use for what travels between actors: 3 times the weights (default 1024)",
    )  # fmt: skip
    up.set_defaults(run=_up)
    check = actions.add_parser("check", help="what would keep a cluster or a run in it from working, all at once")
    check.add_argument("sizes", nargs="*", metavar="PART=N", help=_SIZES)
    check.add_argument("--recipe", help="check for this recipe's runs, too")
    check.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change to the recipe")
    check.set_defaults(run=_check)
    status = actions.add_parser("status", help="nodes by role with their slots, actors, the run, what is dead and why")
    status.set_defaults(run=_status)
    scale = actions.add_parser("scale", help="more or fewer raylets, and actors of the run that goes on")
    scale.add_argument("sizes", nargs="*", metavar="PART=N", help=f"{_SIZES}; none: replace what is dead")
    scale.set_defaults(run=_scale)
    submit = actions.add_parser("submit", help="start a training in the cluster, as a process of its own")
    submit.add_argument("recipe", nargs="?", help="name of a shipped recipe, or the path of a .toml file")
    submit.add_argument("changes", nargs="*", metavar="key=value", help="changes to the recipe")
    submit.add_argument("--resume", metavar="RUN", help="go on with this run from its last checkpoint")
    submit.set_defaults(run=_submit)
    down = actions.add_parser("down", help="end exactly what was started here, and wait until it is gone")
    down.set_defaults(run=_down)
    for action in (up, check, status, scale, submit, down):
        action.add_argument("--provider", choices=PROVIDERS, default="local", help="default: local, this machine")


def sizes_of(words: Sequence[str], base: Any) -> Any:
    """`envs=4` … laid over `base`. ClusterError names what is no size."""
    from dataclasses import replace

    from controller.local_cluster.state import ROLES, ClusterError

    found: dict[str, int] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in ROLES:
            raise ClusterError(f"{word!r}: there is no such part; use envs=N, inference=N or learners=N")
        if not value.lstrip("-").isdecimal():
            raise ClusterError(f"{word!r}: must be a whole number, at least 1")
        if name in found:
            raise ClusterError(f"{word!r}: {name} is given twice")
        found[name] = int(value)
    return replace(base, **found)


def _up(options: argparse.Namespace) -> int:
    from controller.local_cluster.lifecycle import refuse_second, up
    from controller.local_cluster.state import ClusterError, Size, cluster_folder, locked
    from controller.preflight import check_cluster

    size = sizes_of(options.sizes, Size())
    if options.object_store_mb < 100:
        raise ClusterError(f"--object-store-mb {options.object_store_mb}: at least 100")
    if elsewhere := _elsewhere(options, "up", size):
        return elsewhere()
    folder = cluster_folder()
    with locked(folder):
        refuse_second(folder)
        check_cluster(size, options.object_store_mb, folder)
        state = up(folder, size, options.object_store_mb, _say)
    print(f"up: {size}; token: {state.token}")
    print("next: t2po cluster submit RECIPE; t2po cluster status; it goes on until: t2po cluster down")
    return 0


def _check(options: argparse.Namespace) -> int:
    from controller.local_cluster.state import Size, cluster_folder
    from controller.preflight import check_cluster, check_run

    size = sizes_of(options.sizes, Size())
    if elsewhere := _elsewhere(options, "check", size):
        return elsewhere()
    if options.recipe:
        from controller.config import load_config

        check_run(load_config(options.recipe, options.set))
    else:
        check_cluster(size, 1024, cluster_folder())
    print("nothing is in the way")
    return 0


def _status(options: argparse.Namespace) -> int:
    if elsewhere := _elsewhere(options, "status"):
        return elsewhere()
    from controller.local_cluster.overview import status_lines
    from controller.local_cluster.state import cluster_folder

    print("\n".join(status_lines(cluster_folder())))
    return 0


def _scale(options: argparse.Namespace) -> int:
    from controller.local_cluster.state import Size, cluster_folder, live_state, locked
    from controller.local_cluster.submission import resize

    if elsewhere := _elsewhere(options, "scale", sizes_of(options.sizes, Size())):
        return elsewhere()
    folder = cluster_folder()
    live_state(folder)
    with locked(folder):
        resize(folder, sizes_of(options.sizes, live_state(folder).size), _say)
    return 0


def _submit(options: argparse.Namespace) -> int:
    from controller.local_cluster.state import ClusterError, cluster_folder, live_state, locked
    from controller.local_cluster.submission import resume, submit

    if bool(options.recipe) == bool(options.resume):
        raise ClusterError("submit: name a recipe, or a run with --resume RUN")
    if elsewhere := _elsewhere(options, "submit"):
        return elsewhere()
    folder = cluster_folder()
    live_state(folder)
    with locked(folder):
        if options.resume:
            from controller.policy_folder import find_run

            run = resume(folder, find_run(options.resume))
        else:
            run = submit(folder, options.recipe, options.changes)
    print(f"run folder: {run.folder}")
    print(f"what it prints: {run.log} (pid {run.process.pid}); where it stands: t2po status {run.folder}")
    return 0


def _down(options: argparse.Namespace) -> int:
    if elsewhere := _elsewhere(options, "down"):
        return elsewhere()
    from controller.local_cluster.lifecycle import clear_folder, down
    from controller.local_cluster.state import ClusterError, cluster_folder, locked, read_state

    folder = cluster_folder()
    if read_state(folder) is None:
        raise ClusterError(f"{folder}: no cluster is recorded here; `t2po cluster up` starts one")
    with locked(folder):
        ended = down(folder, _say)
        clear_folder(folder)
    print(f"ended: {', '.join(ended)}" if ended else "nothing of it was running any more; its files are removed")
    return 0


def _elsewhere(options: argparse.Namespace, action: str, size: Any = None) -> Any:
    """What does it with another provider; None for `local`."""
    if options.provider == "local":
        return None
    from controller.remote_cluster import act

    return lambda: act(options.provider, action, options, size)


def _say(line: str) -> None:
    print(line, flush=True)
