"""The commands of `t2po` that concern environments alone: `play`, `env …`, `data get`.

Owns: their arguments and what they print. Called by `controller.cli`. Must not know: training.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ENVIRONMENTS = ("alfworld",)


def add_environment_commands(commands: Any) -> None:
    """Adds the commands to argparse's list of subcommands."""
    play = commands.add_parser("play", help="play an environment yourself")
    play.add_argument("env", choices=ENVIRONMENTS)
    play.add_argument("--panel", default="unseen", help="panel the task is taken from (default: unseen)")
    play.add_argument(
        "--task", default="0", metavar="ID", help="id of the task, or its number in the panel (default: 0)"
    )
    play.set_defaults(run=_play)

    env = commands.add_parser("env", help="check an environment, replay actions, compare with the reference")
    actions = env.add_subparsers(title="actions", metavar="ACTION", required=True)
    check = actions.add_parser("check", help="load and solve every game; no task in two panels")
    check.add_argument("env", choices=ENVIRONMENTS)
    check.add_argument("--panel", action="append", default=[], help="only this panel; may be given several times")
    check.set_defaults(run=_check)
    trace = actions.add_parser("trace", help="replay actions and print one JSON line a step, the reset first")
    trace.add_argument("env", choices=ENVIRONMENTS)
    trace.add_argument("--panel", required=True, help="panel that the task ids belong to")
    trace.add_argument(
        "--episodes", type=Path, required=True, metavar="FILE", help='JSON lines {"task": id, "actions": ["…"]}'
    )
    trace.set_defaults(run=_trace)
    compare = actions.add_parser("compare", help="walk through games in our engine and in TextWorld (EXTRAS=textworld)")
    compare.add_argument("env", choices=ENVIRONMENTS)
    compare.add_argument("--official", default="0", metavar="N", help="official games (fetch them first; default: 0)")
    compare.add_argument("--own", default="10", metavar="N", help="games of the embedded suite (default: 10)")
    compare.set_defaults(run=_compare)

    data = commands.add_parser("data", help="fetch task data")
    verbs = data.add_subparsers(title="actions", metavar="ACTION", required=True)
    get = verbs.add_parser("get", help="load official games into the data folder (T2PO_DATA)")
    get.add_argument("env", choices=ENVIRONMENTS)
    get.add_argument(
        "--from", dest="source", type=Path, required=True, metavar="PATH", help="folder of the games, or a .jsonl(.xz)"
    )
    get.set_defaults(run=_get)


def _play(options: argparse.Namespace) -> int:
    from envs.alfworld.play import choose_task, play

    play(choose_task(options.panel, options.task))
    return 0


def _check(options: argparse.Namespace) -> int:
    from envs.check import check_env

    report = check_env(options.env, tuple(options.panel), progress=lambda text: print(text, file=sys.stderr))
    print("\n".join(report.lines()))
    return 0 if report.ok else 2


def _trace(options: argparse.Namespace) -> int:
    from envs.trace import trace_file

    for record in trace_file(options.env, options.panel, options.episodes):
        print(json.dumps(record, ensure_ascii=False))
    return 0


def _compare(options: argparse.Namespace) -> int:
    from envs.alfworld.differential import main

    return main(["--official", options.official, "--own", options.own])


def _get(options: argparse.Namespace) -> int:
    from envs.alfworld.official import fetch_official

    print("\n".join(fetch_official(options.source).lines()))
    return 0
