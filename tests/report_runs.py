"""Run folders for the tests of the report, made by the writers of a real run, with a tokenizer that spells bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from controller.audit import AuditLog
from controller.config import RunConfig
from controller.eval_result import eval_settings, summarise, write_result
from controller.metrics import MetricsLog, StepMetrics
from controller.run_folder import RunFolder
from controller.trajectory_log import write_trajectories
from envs.records import Candidate, Trajectory, TrajectoryGroup, Turn
from tests.fakes import make_candidate, make_group, make_task, make_turn

THOUGHT = "<think>wär — 東京</think>\n<action>right</action>"
HOSTILE = "</script><script>document.title='taken'</script><!-- <b>&amp;\u2028\x00 {{data}}"


def byte_tokenizer() -> Tokenizer:
    """One token a byte: every character beyond ASCII takes several."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={sign: number for number, sign in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def save_tokenizer(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    return folder


def spoken(text: str, forced_from: int = -1, num_forced: int = 0, **changes: Any) -> Candidate:
    """A reply with one token a byte; M runs from 0 to 1 along it. `forced_from`: where TTI ended the thought."""
    ids = np.array(byte_tokenizer().encode(text).ids, dtype=np.int32)
    forced = np.zeros(len(ids), dtype=np.bool_)
    forced[forced_from : forced_from + num_forced] = forced_from >= 0
    m = np.linspace(0, 1, len(ids), dtype=np.float32)
    m[forced] = np.nan
    return make_candidate(
        text,
        token_ids=ids,
        logprobs=np.zeros(len(ids), dtype=np.float32),
        entropy=m.copy(),
        uncertainty=m,
        forced=forced,
        fired="uncertainty" if forced_from >= 0 else "",
        fired_at=forced_from,
        **changes,
    )


def make_groups(step: int, num_groups: int = 2, text: str = THOUGHT) -> list[TrajectoryGroup]:
    """Groups of three siblings: the first was cut by TTI and won, the second had a candidate thrown away, the third is
    plain."""
    return [_group(step * num_groups + number, text) for number in range(num_groups)]


def _group(index: int, text: str) -> TrajectoryGroup:
    cut = make_turn(accepted=spoken(text, forced_from=7, num_forced=3, gamma=0.25), reward=1.0, valid=True)
    thrown = make_turn(accepted=spoken(text, gamma=0.02), rejected=(spoken(text, gamma=0.001),), observation=HOSTILE)
    plain = make_turn(accepted=spoken(text), valid=False, format_valid=False, action="")
    turns: list[tuple[Turn, ...]] = [(plain, cut), (plain, thrown), (plain,)]
    group = make_group(index, size=3)
    task = make_task(index)
    trajectories = tuple(
        Trajectory(
            id=f"{group.id}/{sibling}/0", group_id=group.id, task=task, sibling=sibling, attempt=0,
            turns=turns[sibling], won=sibling == 0, duration_s=1.5, score=float(sibling == 0),
        )
        for sibling in range(3)
    )  # fmt: skip
    return TrajectoryGroup(id=group.id, index=index, task=task, trajectories=trajectories)


def values_at(step: int, seed: int = 0) -> dict[str, float]:
    """Metrics of a run that learns; `approx_kl` is not measured at every other step."""
    return {
        "success": min(1.0, 0.1 * step + 0.01 * seed),
        "entropy": 1.0 / step,
        "grad_norm": 0.5,
        "approx_kl": float("nan") if step % 2 else 1e-4 * step,
        "queue_depth": float(step % 3),
        "house_of_its_own": 1.0 * step,
    }


def make_run(folder: Path, name: str = "made-s0", num_steps: int = 4, evaluated: bool = True, **config: Any) -> Path:
    """A run of `num_steps` steps under `folder`; its path."""
    settings = RunConfig(runs_dir=str(folder), name=name, steps=max(num_steps, 4), **config)
    with RunFolder.create(settings, "corridor", min_free_bytes=0) as run:
        save_tokenizer(run.policy)
        audit, metrics = AuditLog(run.audit), MetricsLog(run.metrics)
        if evaluated:
            evaluate(run.path, settings, 0, "before", num_won=1)
        for step in range(1, num_steps + 1):
            add_step(run.path, step, metrics, seed=settings.seed)
            if step % 2 == 0:
                audit.write("committed", step=step)
        if evaluated and num_steps:
            evaluate(run.path, settings, num_steps, "after", num_won=3)
        metrics.close()
        audit.close()
        return run.path


def add_step(run: Path, step: int, metrics: MetricsLog, seed: int = 0) -> None:
    """What the update writes after a step."""
    write_trajectories(run / "trajectories", step, make_groups(step), token_groups=1)
    created = json.loads((run / "run.json").read_text())["created"]
    metrics.write(StepMetrics(step=step, values=values_at(step, seed), time=created + 10.0 * step))


def evaluate(run: Path, settings: RunConfig, version: int, label: str, num_won: int) -> None:
    trajectories = [one.trajectories[0] for one in (_group(index, THOUGHT) for index in range(4))]
    result = summarise(
        trajectories,
        panel="unseen",
        panel_hash="0",
        version=version,
        settings=eval_settings(settings),
        duration_s=1.0,
    )
    by_kind = {"walk": (num_won, 4)}
    path = write_result(result, run / "evaluations", label)
    row = json.loads(path.read_text()) | {"won": num_won, "success": num_won / 4, "by_kind": by_kind}
    path.write_text(json.dumps(row))
