"""`t2po coldstart RECIPE --to FOLDER`: makes the start policy, measures it, puts it in place at the end.

Owns: the folder of the command while it is unfinished, what is measured, what is said. Called by the CLI. Must not
know: how the policy is made (`controller.coldstart`).

Until the end everything lies in FOLDER.unfinished (and, shared with runs, in the cache of start policies); after a
kill the same command goes on with it. FOLDER itself is there when it is whole, with the results in its `evaluations`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from controller.coldstart import EMBEDDED, Report, facts, fingerprint, prepare_policy, start_of, unfinished
from controller.config import RunConfig
from controller.durable_files import write_whole
from controller.eval_result import EvalResult, comparison, eval_settings, lines_of, was_evaluated, write_result
from controller.evaluate import evaluate
from controller.play_session import play_session
from controller.player import Player
from controller.policy_folder import PolicyError
from controller.stop_signal import Stopped
from envs.environment import require_ready
from envs.panel import load_panel

COMMAND = "command.json"
"""What the unfinished command was asked for."""


def write_policy(config: RunConfig, to: Path, report: Report) -> Path:
    """`prepare_policy` into a folder of the user's own, which must be a new one: what lies there stays.

    Raises KeyboardInterrupt when it is stopped by a signal.
    """
    if config.model not in EMBEDDED and config.coldstart.source == "expert":
        raise PolicyError(
            f'model = "{config.model}": a folder is used as it is, there is nothing to build; '
            f"give one of {', '.join(EMBEDDED)}, or set coldstart.source=policy, and it learns from its own successes"
        )
    to = to.expanduser()
    if to.exists():
        raise PolicyError(f"--to {to}: exists already and nothing is overwritten; remove it or name another")
    require_ready(config.env)
    with unfinished(to.with_name(to.name + ".unfinished").absolute()) as work:
        _same_command(config, to, work)
        try:
            policy = _policy(config, work, report)
        except (Stopped, KeyboardInterrupt):
            report("stopped; the same command goes on from here")
            raise KeyboardInterrupt from None
        policy.rename(to)
        shutil.rmtree(work, ignore_errors=True)
    return to


def _same_command(config: RunConfig, to: Path, work: Path) -> None:
    """Notes at first what is asked for, compares afterwards."""
    asked = {
        "runs_dir": str(Path(config.runs_dir).expanduser().absolute()),
        "eval": [eval_settings(config), config.env.eval_panel] if config.coldstart.evaluate else None,
        **facts(config),
    }
    asked = json.loads(json.dumps(asked))
    page = work / COMMAND
    if not page.is_file():
        write_whole(page, json.dumps(asked, indent=2, sort_keys=True).encode() + b"\n")
        return
    before, now = _flat(json.loads(page.read_text(encoding="utf-8"))), _flat(asked)
    changed = [
        f"{key} was {before.get(key)!r}, is {now.get(key)!r}"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]
    if changed:
        raise PolicyError(
            f"{work}: an unfinished cold start for --to {to} with another configuration: {'; '.join(changed[:3])}"
            f"{f' and {len(changed) - 3} more' if len(changed) > 3 else ''}; go on with the configuration that it "
            "began with, or remove that folder, or name another --to"
        )


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with dots in the keys."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        key: value for name, part in tree.items() for key, value in _flat(part, f"{prefix}.{name}".strip(".")).items()
    }


def _policy(config: RunConfig, work: Path, report: Report) -> Path:
    """The policy in `work`, measured, with its results."""
    results = work / "evaluations"
    results.mkdir(exist_ok=True)
    if config.coldstart.evaluate:
        if config.coldstart.source == "policy":
            _measure(config, start_of(config, report), results, "before", report)
        else:
            report("before: not measured: the policy cannot play before an expert has shown it the format")
    policy = prepare_policy(config, work / "policy", report)
    if config.coldstart.evaluate:
        _measure(config, policy, results, "after", report)
        report(comparison(results, config.env.eval_panel))
        shutil.copytree(results, policy / "evaluations", dirs_exist_ok=True)
    return policy


def _measure(config: RunConfig, policy: Path, results: Path, label: str, report: Report) -> None:
    """Plays the evaluation panel, unless that was done before a kill."""
    panel = load_panel(config.env.name, config.env.eval_panel)
    if was_evaluated(results, panel.name, label):
        report(f"{label}: measured before")
        return
    tasks = panel.tasks[: config.eval.num_tasks or None]
    report(f"{label}: {policy} plays {len(tasks)} tasks of {panel.name}")

    async def play(player: Player) -> EvalResult:
        return await evaluate(player, tasks, config, panel, version=0, run_id=f"coldstart-{fingerprint(config)}")

    result = play_session(config, policy, play, report, folder=results.parent)
    for line in lines_of(result, label):
        report(line)
    write_result(result, results, label)
