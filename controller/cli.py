"""The command line: `t2po`.

Owns: the commands, their arguments, exit codes, and how errors are shown. Called by the console script and
by `python -m controller.cli`. Must not know: how anything is done. Every command imports what it needs when
it runs, so that `t2po --help` answers at once.

Exit codes: 0 done, 1 a defect (with its trace), 2 something that the user can put right, 75 a training that paused
itself, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from controller.cli_cluster import add_cluster_commands
from controller.cli_environments import add_environment_commands
from controller.cli_monitoring import add_monitoring_commands

if TYPE_CHECKING:
    from controller.config import RunConfig

_DESCRIPTION = "Multi-turn reinforcement learning for LLM agents, with uncertainty-guided exploration control."
_CHANGES = "changes to the recipe, as key=value: seed=1 tti.enabled=false (`t2po config RECIPE` prints all keys)"
_ROOMS = ("actors", "controller", "envs", "learner")


class UsageError(ValueError):
    """Arguments that do not fit together."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _options(arguments)
    try:
        return int(options.run(options) or 0)
    except KeyboardInterrupt:
        print("t2po: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `t2po config alfworld | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        message = _readable(error)
        if message is None or os.environ.get("T2PO_DEBUG"):
            raise
        print("\n".join(f"t2po: {line}" for line in message.splitlines()), file=sys.stderr)
        return 2


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The arguments, where changes may also stand behind an option: `t2po eval RUN --panel seen seed=1`.

    argparse takes an empty list as found once it meets an option, and leaves the rest over.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and ("changes" not in options or any(item.startswith("-") for item in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.changes = [*options.changes, *rest]
    return options


def _readable(error: BaseException) -> str | None:
    """What to tell the user, when the error speaks for itself; None for a defect, which needs its trace.

    Errors of our own name value, place and remedy; so does the operating system for files and ports. One that
    comes out of a remote part is judged by its cause.
    """
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        return _readable(cause)
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror or error}"
    if isinstance(error, UsageError) or type(error).__module__.split(".")[0] in _ROOMS:
        return str(error)
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] not in _ROOMS:
        return f"the package {error.name} is not installed: run make setup (EXTRAS=textworld or dense)"
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="t2po", description=_DESCRIPTION)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    train = commands.add_parser("train", help="train an agent, or go on with a run")
    train.add_argument("recipe", nargs="?", help="name of a shipped recipe, or the path of a .toml file")
    train.add_argument("changes", nargs="*", metavar="key=value", help=_CHANGES)
    train.add_argument("--resume", metavar="RUN", help="go on with this run from its last checkpoint")
    train.set_defaults(run=_train)

    evaluate = commands.add_parser("eval", help="measure a run's policy on a panel")
    evaluate.add_argument("folder", metavar="RUN", help="the run's folder, or its name below runs/")
    evaluate.add_argument("changes", nargs="*", metavar="key=value", help="changes to the run's configuration")
    evaluate.add_argument("--panel", help="panel to play; default: the run's eval_panel")
    evaluate.set_defaults(run=_eval)

    status = commands.add_parser("status", help="where a run stands")
    status.add_argument("folder", metavar="RUN", help="the run's folder, or its name below runs/")
    status.set_defaults(run=_status)

    report = commands.add_parser("report", help="write one HTML page about a run, or about several side by side")
    report.add_argument("folders", nargs="+", metavar="RUN", help="a run's folder, or its name below runs/")
    report.add_argument("--to", type=Path, metavar="FILE", help="default: report.html in the run's folder")
    report.add_argument("--trajectories", type=int, metavar="N", help="steps whose trajectories are shown (default 8)")
    report.add_argument("--serve", action="store_true", help="serve the page on loopback, kept up to date")
    report.add_argument("--port", type=int, help="with --serve: default 0, one that is free")
    report.set_defaults(run=_report)

    health = commands.add_parser("health", help="how a run was and is: its changes of state, with their causes")
    health.add_argument("folder", metavar="RUN", help="the run's folder, or its name below runs/")
    health.add_argument("--json", action="store_true", help="print it for programs")
    health.set_defaults(run=_health)

    scale = commands.add_parser("scale", help="change how many actors a running training has")
    scale.add_argument("folder", metavar="RUN", help="the run's folder, or its name below runs/")
    scale.add_argument("sizes", nargs="+", metavar="PART=N", help="envs=N, inference=N, learners=N")
    scale.set_defaults(run=_scale)

    export = commands.add_parser("export", help="write a run's policy as a plain Hugging Face folder")
    export.add_argument("folder", metavar="RUN", help="the run's folder, or its name below runs/")
    export.add_argument("--to", type=Path, metavar="FOLDER", help="default: exported/step-N in the run's folder")
    export.add_argument(
        "--checkpoint", default="last", metavar="last|best|N", help="which one; best: by evaluation success"
    )
    export.set_defaults(run=_export)

    config = commands.add_parser("config", help="print a recipe as resolved, each knob with its sentence")
    config.add_argument("recipe", nargs="?", help="name of a shipped recipe, or the path of a .toml file")
    config.add_argument("changes", nargs="*", metavar="key=value", help=_CHANGES)
    config.add_argument("--markdown", action="store_true", help="print docs/configuration.md instead")
    config.set_defaults(run=_config)

    metrics = commands.add_parser("metrics", help="print every metric with unit, meaning and formula (docs/metrics.md)")
    metrics.set_defaults(run=_metrics)

    coldstart = commands.add_parser("coldstart", help="build the policy that a recipe's runs start from")
    coldstart.add_argument("recipe", help="name of a shipped recipe, or the path of a .toml file")
    coldstart.add_argument("changes", nargs="*", metavar="key=value", help=_CHANGES)
    coldstart.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="where the model is written")
    coldstart.set_defaults(run=_coldstart)

    calibrate = commands.add_parser("calibrate", help="propose TTI and TDS thresholds for stated rates")
    calibrate.add_argument("model", metavar="MODEL", help="a Hugging Face folder, or a run's folder or name")
    calibrate.add_argument("recipe", metavar="ENV", help="recipe whose environment and settings are used")
    calibrate.add_argument("changes", nargs="*", metavar="key=value", help=_CHANGES)
    calibrate.add_argument("--cut", type=float, default=0.2, help="share of thinking tokens to cut (default 0.2)")
    calibrate.add_argument("--resample", type=float, default=0.15, help="share of turns to sample again (default 0.15)")
    calibrate.add_argument("--tasks", type=int, default=128, help="tasks of each of the three rounds (default 128)")
    calibrate.add_argument("--to", type=Path, default=Path("calibration"), metavar="FOLDER", help="plot and numbers")
    calibrate.set_defaults(run=_calibrate)
    add_environment_commands(commands)
    add_monitoring_commands(commands)
    add_cluster_commands(commands)
    return parser


def _train(options: argparse.Namespace) -> int:
    if options.resume:
        if options.recipe:
            raise UsageError(
                f"train {options.recipe} --resume {options.resume}: a run goes on with the configuration that it "
                "began with; leave the recipe and all changes out"
            )
        from controller.policy_folder import find_run

        folder = find_run(options.resume)
        from controller.train import resume_training

        return resume_training(folder)
    config = _load(options)
    from controller.train import run_training

    return run_training(config, Path(options.recipe).stem)


def _eval(options: argparse.Namespace) -> int:
    from controller.evaluate import run_evaluation
    from controller.policy_folder import find_run

    return run_evaluation(find_run(options.folder), options.panel, options.changes)


def _status(options: argparse.Namespace) -> int:
    from controller.policy_folder import find_run
    from controller.run_status import status_lines

    print("\n".join(status_lines(find_run(options.folder))))
    return 0


def _report(options: argparse.Namespace) -> int:
    if options.serve and options.to:
        raise UsageError(f"--serve --to {options.to}: a page is served or written; leave one of the two out")
    if options.port is not None and not options.serve:
        raise UsageError(f"--port {options.port}: only with --serve")
    if not 0 <= (options.port or 0) < 65536:
        raise UsageError(f"--port {options.port}: between 0 and 65535")
    if options.trajectories is not None and options.trajectories < 0:
        raise UsageError(f"--trajectories {options.trajectories}: at least 0")
    from controller.policy_folder import find_run
    from controller.report.command import serve_report, write_report

    folders = [find_run(name) for name in options.folders]
    if options.serve:
        return serve_report(folders, options.port or 0, options.trajectories, lambda line: print(line, flush=True))
    print(write_report(folders, options.to, options.trajectories))
    return 0


def _health(options: argparse.Namespace) -> int:
    from controller.policy_folder import find_run
    from controller.run_health import health_json, health_lines

    folder = find_run(options.folder)
    print(json.dumps(health_json(folder), indent=2) if options.json else "\n".join(health_lines(folder)))
    return 0


def _scale(options: argparse.Namespace) -> int:
    from controller.policy_folder import find_run
    from controller.scale_command import scale

    print(scale(find_run(options.folder), options.sizes))
    return 0


def _export(options: argparse.Namespace) -> int:
    from controller.export_policy import export_policy
    from controller.policy_folder import find_run

    print(export_policy(find_run(options.folder), options.checkpoint, options.to))
    return 0


def _config(options: argparse.Namespace) -> int:
    from controller.config_text import as_markdown, as_toml

    print(as_markdown() if options.markdown else as_toml(_load(options)), end="")
    return 0


def _metrics(options: argparse.Namespace) -> int:
    from controller.metrics_page import as_markdown

    print(as_markdown(), end="")
    return 0


def _coldstart(options: argparse.Namespace) -> int:
    config = _load(options)
    from controller.coldstart_command import write_policy

    print(write_policy(config, options.to, lambda line: print(line, flush=True)))
    return 0


def _calibrate(options: argparse.Namespace) -> int:
    config = _load(options)
    for name in ("cut", "resample"):
        if not 0 < getattr(options, name) < 1:
            raise UsageError(f"--{name} {getattr(options, name)}: a share between 0 and 1")
    if options.tasks < 1:
        raise UsageError(f"--tasks {options.tasks}: at least 1")
    from controller.calibrate import Targets, run_calibration

    targets = Targets(cut=options.cut, resampled=options.resample)
    return run_calibration(options.model, config, targets, options.tasks, options.to)


def _load(options: argparse.Namespace) -> RunConfig:
    from controller.config import load_config, shipped_recipes

    if not options.recipe:
        raise UsageError(f"name a recipe, one of {', '.join(shipped_recipes())}, or the path of a .toml file")
    return load_config(options.recipe, options.changes)


if __name__ == "__main__":
    sys.exit(main())
