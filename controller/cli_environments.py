"""The commands of `t2po` that concern environments alone: `play`, `env …`, `data get`, `panel …`, `serve search`.

Owns: their arguments and what they print. Called by `controller.cli`. Must not know: training.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from envs.data_folder import DataError

_ENV = "alfworld, webshop, search, or module:Class for one of your own"


def add_environment_commands(commands: Any) -> None:
    """Adds the commands to argparse's list of subcommands."""
    play = commands.add_parser("play", help="play an environment yourself")
    play.add_argument("env", metavar="ENV", help=_ENV)
    play.add_argument("--panel", default="unseen", help="panel the task is taken from (default: unseen)")
    play.add_argument(
        "--task", default="0", metavar="ID", help="id of the task, or its number in the panel (default: 0)"
    )
    play.set_defaults(run=_play)

    env = commands.add_parser("env", help="check an environment, replay actions, compare with a reference")
    actions = env.add_subparsers(title="actions", metavar="ACTION", required=True)
    check = actions.add_parser("check", help="load every task, let the expert play it; no task in two panels")
    check.add_argument("env", metavar="ENV", help=_ENV)
    check.add_argument("--panel", action="append", default=[], help="only this panel; may be given several times")
    check.set_defaults(run=_check)
    trace = actions.add_parser("trace", help="replay actions and print one JSON line a step, the reset first")
    trace.add_argument("env", metavar="ENV", help=_ENV)
    trace.add_argument("--panel", help="panel that the task ids belong to")
    trace.add_argument(
        "--episodes", type=Path, required=True, metavar="FILE", help='JSON lines {"task": id, "actions": ["…"]}'
    )
    trace.add_argument(
        "--data", type=Path, metavar="PATH", help="webshop: official files; a task is an index into the goal list"
    )
    trace.add_argument("--goal-seed", type=int, help="webshop: seed of the goal list (default: 233)")
    trace.add_argument("--human-goals", action="store_true", help="webshop: the goals that people wrote")
    trace.add_argument("--observation", choices=("text", "text_rich"), help="webshop: observation mode (default: text)")
    trace.set_defaults(run=_trace)
    compare = actions.add_parser("compare", help="walk through games in our engine and in TextWorld (EXTRAS=textworld)")
    compare.add_argument("env", choices=("alfworld",))
    compare.add_argument("--official", default="0", metavar="N", help="official games (fetch them first; default: 0)")
    compare.add_argument("--own", default="10", metavar="N", help="games of the embedded suite (default: 10)")
    compare.set_defaults(run=_compare)

    data = commands.add_parser("data", help="fetch task data")
    verbs = data.add_subparsers(title="actions", metavar="ACTION", required=True)
    get = verbs.add_parser("get", help="load official data into the data folder (T2PO_DATA)")
    get.add_argument("env", metavar="ENV", help=_ENV)
    get.add_argument(
        "--from", dest="source", type=Path, required=True, metavar="PATH", help="official files or their folder"
    )
    get.set_defaults(run=_get)

    panel = commands.add_parser("panel", help="show a panel, or verify that it is what it was")
    verbs = panel.add_subparsers(title="actions", metavar="ACTION", required=True)
    show = verbs.add_parser("show", help="panels of an environment: size, kinds, content hash")
    show.add_argument("env", metavar="ENV", help=_ENV)
    show.add_argument("panel", nargs="?", help="only this panel")
    show.add_argument("--tasks", action="store_true", help="list the tasks with their own hashes")
    show.set_defaults(run=_panel_show)
    verify = verbs.add_parser("verify", help="content hashes as published, no task in two panels")
    verify.add_argument("env", metavar="ENV", help=_ENV)
    verify.add_argument("panel", nargs="?", help="only this panel")
    verify.add_argument("--hash", help="content hash that the panel should have (default: the published one)")
    verify.set_defaults(run=_panel_verify)

    serve = commands.add_parser("serve", help="services that runs can use")
    services = serve.add_subparsers(title="services", metavar="SERVICE", required=True)
    search = services.add_parser("search", help="the retrieval server of Search QA")
    search.add_argument("--host", default="127.0.0.1", help="address it listens on (default: 127.0.0.1)")
    search.add_argument("--port", type=int, default=8000, help="port (default: 8000; 0: any free one)")
    search.add_argument(
        "--corpus", default="factbook", help="factbook, or a corpus that `t2po data get search` fetched"
    )
    search.add_argument("--index", choices=("bm25", "dense"), default="bm25", help="kind of index (default: bm25)")
    search.set_defaults(run=_serve_search)


def _play(options: argparse.Namespace) -> int:
    from envs.play import choose_task, play

    play(choose_task(options.env, options.panel, options.task))
    return 0


def _check(options: argparse.Namespace) -> int:
    from envs.check import check_env

    report = check_env(options.env, tuple(options.panel), progress=lambda text: print(text, file=sys.stderr))
    print("\n".join(report.lines()))
    return 0 if report.ok else 2


def _trace(options: argparse.Namespace) -> int:
    for record in _records(options):
        print(json.dumps(record, ensure_ascii=False))
    return 0


def _records(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    if options.data is None and options.panel:
        for name in ("goal_seed", "human_goals", "observation"):
            if (value := getattr(options, name)) is not None and value is not False:  # a seed may be 0
                option = f"--{name.replace('_', '-')}"
                raise DataError(f"{option} with --panel {options.panel}: a panel's tasks name all of it; leave it out")
        from envs.trace import trace_file

        return trace_file(options.env, options.panel, options.episodes)
    if options.env != "webshop" or options.panel or options.data is None:
        raise DataError(f"env trace {options.env}: name the tasks' --panel (for webshop instead: --data PATH)")
    from envs.webshop.trace import trace_data

    return trace_data(
        options.data,
        options.episodes,
        goal_seed=233 if options.goal_seed is None else options.goal_seed,
        human_goals=options.human_goals,
        observation_mode=options.observation or "text",
    )


def _compare(options: argparse.Namespace) -> int:
    from envs.alfworld.differential import main

    return main(["--official", options.official, "--own", options.own])


def _get(options: argparse.Namespace) -> int:
    from controller.progress_line import ProgressLine
    from envs.environment import find_environment

    progress = ProgressLine()
    try:
        lines = find_environment(options.env).fetch(options.source, None, progress)
    finally:
        progress.close()
    print("\n".join(lines))
    return 0


def _panel_show(options: argparse.Namespace) -> int:
    from envs.panel_report import show_lines

    print("\n".join(show_lines(options.env, options.panel, tasks=options.tasks)))
    return 0


def _panel_verify(options: argparse.Namespace) -> int:
    from envs.panel_report import verify

    report = verify(options.env, options.panel, expected=options.hash)
    print("\n".join(report.lines))
    return 0 if report.ok else 2


def _serve_search(options: argparse.Namespace) -> int:
    from envs.search.server import serve

    return serve(options.corpus, options.index, host=options.host, port=options.port)
