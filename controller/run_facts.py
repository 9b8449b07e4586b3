"""What is known of a run before its first step, for whoever watches its metrics.

Owns: `RunFacts`, read from a run's folder. Called by the training loop, which hands them to the metrics endpoint.
Must not know: Prometheus, how a metric is computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from controller.run_folder import IDENTITY, RunFolder


@dataclass(frozen=True, slots=True)
class RunFacts:
    """`labels`: what the run is, by name. The bounds are the configuration's; `folder` is where the run writes."""

    labels: dict[str, str]
    folder: Path
    num_steps: int
    max_staleness: int
    queue_max_groups: int


def run_facts(run: RunFolder) -> RunFacts:
    """The facts of the run in this folder. Raises RunFolderError, ConfigError for a folder changed by hand."""
    config, identity = run.config(), run.read_json(IDENTITY)
    versions = run.read_json("versions.json")
    return RunFacts(
        labels={
            "run": run.path.name,
            "run_id": run.id,
            "recipe": str(identity.get("recipe", "")),
            "environment": config.env.name,
            "algorithm": config.algorithm,
            "model": config.model,
            "tti": config.tti.acts,
            "tds": config.tds.acts,
            "seed": str(config.seed),
            "version": str(versions.get("t2po", "")) if isinstance(versions, dict) else "",
        },
        folder=run.path,
        num_steps=config.steps,
        max_staleness=config.rollout.max_staleness,
        queue_max_groups=config.queue.max_groups,
    )
