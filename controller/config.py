"""The configuration tree of a run: preset, recipe, overrides -> one frozen `RunConfig`.

The preset of `algorithm` lies lowest, the TOML recipe over it, `key=value` overrides over both.

Owns: the top-level knobs, loading, and the error that names key, value and remedy. Called by the CLI. Must not know:
Ray or any component that reads the values, which sections do not go together (`controller.config_conflicts`).
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from actors.settings import InferenceSettings, RolloutSettings, TDSSettings, TTISettings
from controller.autoscaling import AutoscaleSettings
from controller.cluster_settings import ClusterSettings
from controller.collapse.settings import CollapseSettings
from controller.config_conflicts import conflicts
from controller.knobs import knobs
from controller.queue_address import hidden_password
from controller.supervision_settings import SupervisionSettings
from controller.threshold_tracking import TrackingSettings
from envs.settings import EnvSettings, Section
from learner.presets import ALGORITHMS, preset
from learner.settings import (
    AdvantageSettings,
    ColdstartSettings,
    CorrectionSettings,
    CriticSettings,
    LearnerSettings,
    LossSettings,
)

RECIPES = Path(__file__).resolve().parent.parent / "deploy" / "recipes"
_RENAMED = {"advantage.algorithm": "advantage.estimator"}


class ConfigError(ValueError):
    """A configuration that cannot be used; one line per problem: key, value, what is allowed."""


class QueueSettings(Section):
    """The replay queue (Redis Streams)."""

    url: str = Field(
        "",
        description="Redis or Valkey URL (rediss:// is TLS); empty starts and supervises the embedded Valkey server. "
        "User and password: better in T2PO_QUEUE_USER and T2PO_QUEUE_PASSWORD, which a resume reads again.",
    )
    ca_file: str = Field(
        "", description="PEM file of the CA that a rediss:// server is trusted by; empty: the system's."
    )
    max_groups: int = Field(256, ge=1, description="Groups the queue holds; producers wait when it is full.")
    timeout_s: float = Field(60.0, gt=0, description="Longest wait for the server to answer or come back, seconds.")


class EvalSettings(Section):
    """Evaluation: the bare policy (no TTI, no TDS) unless switched on."""

    num_tasks: int = Field(
        0, ge=0, description="Tasks of the evaluation panel that are played, from its start; 0 is all."
    )
    every_steps: int = Field(
        0, ge=0, description="Optimizer steps between evaluations in a run; 0 is only before and after."
    )
    before: bool = Field(True, description="Whether the policy is evaluated before the first step too.")
    temperature: float = Field(0.6, ge=0, description="Sampling temperature.")
    top_p: float = Field(0.95, gt=0, le=1, description="Nucleus sampling: share of probability kept.")
    top_k: int = Field(20, ge=0, description="Most likely tokens kept; 0 is all.")
    interventions: bool = Field(False, description="Whether TTI and TDS act during evaluation too.")


class CheckpointSettings(Section):
    """When a run is saved."""

    every_steps: int = Field(5, ge=1, description="Optimizer steps between checkpoints.")
    keep_last: int = Field(2, ge=1, description="Newest checkpoints that are kept.")
    keep_best: bool = Field(
        True, description="Whether each evaluated step is saved, and the one with the best success kept as well."
    )


class MetricsSettings(Section):
    """Where metrics go besides the run folder."""

    port: int = Field(9464, ge=0, le=65535, description="Port of the Prometheus endpoint on loopback; 0 is off.")
    token_groups: int = Field(
        2, ge=0, description="Groups a step whose trajectories are written with tokens and M, for the report."
    )


class RunConfig(Section):
    """One training run."""

    name: str = Field("", description="Folder of the run below `runs_dir`; empty: recipe, seed and start time.")
    runs_dir: str = Field("runs", description="Folder that holds the runs.")
    seed: int = Field(0, ge=0, lt=2**31, description="Seed that every random choice of the run derives from.")
    steps: int = Field(40, ge=0, description="Optimizer steps.")
    model: str = Field(
        "tiny",
        description='Policy: "tiny" (built and cold-started here), "smollm2", or the path of a Hugging Face folder.',
    )
    algorithm: str = Field(
        "gigpo",
        description="Settings of advantage, loss and critic that lie below the recipe's and the command line's: "
        f"{', '.join(ALGORITHMS)} (docs/algorithms.md).",
    )
    env: EnvSettings = EnvSettings()
    rollout: RolloutSettings = RolloutSettings()
    tti: TTISettings = TTISettings()
    tds: TDSSettings = TDSSettings()
    calibration: TrackingSettings = TrackingSettings()
    inference: InferenceSettings = InferenceSettings()
    learner: LearnerSettings = LearnerSettings()
    advantage: AdvantageSettings = AdvantageSettings()
    loss: LossSettings = LossSettings()
    correction: CorrectionSettings = CorrectionSettings()
    critic: CriticSettings = CriticSettings()
    coldstart: ColdstartSettings = ColdstartSettings()
    eval: EvalSettings = EvalSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    queue: QueueSettings = QueueSettings()
    metrics: MetricsSettings = MetricsSettings()
    collapse: CollapseSettings = CollapseSettings()
    cluster: ClusterSettings = ClusterSettings()
    supervision: SupervisionSettings = SupervisionSettings()
    autoscale: AutoscaleSettings = AutoscaleSettings()

    @property
    def most_groups_per_step(self) -> int:
        """Groups that a step takes at most, those included that advantage.keep_groups leaves out."""
        refill = 1 if self.advantage.keep_groups == "all" else self.advantage.refill
        return refill * self.rollout.groups_per_step

    @model_validator(mode="before")
    @classmethod
    def _over_the_algorithm(cls, tree: Any) -> Any:
        """What is given lies over the algorithm's preset."""
        name = tree.get("algorithm", cls.model_fields["algorithm"].default) if isinstance(tree, dict) else None
        return merge(preset(name), tree) if isinstance(name, str) and name in ALGORITHMS else tree

    @field_validator("algorithm")
    @classmethod
    def _known_algorithm(cls, name: str) -> str:
        preset(name)
        return name

    @model_validator(mode="after")
    def _check_across_sections(self) -> RunConfig:
        if problems := conflicts(self):
            raise ValueError("\n".join(problems))
        return self


def _spelled_out(key: str) -> str:
    """`tti = "budget"` is short for `tti.variant = "budget"`."""
    return f"{key}.variant" if key in ("tti", "tds") else key


def parse_overrides(overrides: list[str]) -> dict[str, Any]:
    """`["tti.enabled=false", "seed=1"]` -> nested dictionary; values are TOML, bare words are strings."""
    tree: dict[str, Any] = {}
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise ConfigError(f"{item!r}: an override is written key=value, for example tti.enabled=false")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        *parents, leaf = _spelled_out(key).split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(f"{item!r}: {parent!r} is a value already, not a section")
        node[leaf] = value
    return tree


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`change` laid over `base`, section by section."""
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the checkout."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def recipe_path(recipe: str) -> Path:
    """A recipe's name (`alfworld`) or path (`my/recipe.toml`) -> its file."""
    path = Path(recipe) if recipe.endswith(".toml") else RECIPES / f"{recipe}.toml"
    if not path.is_file():
        raise ConfigError(f"recipe {recipe!r}: no such file ({path}); shipped recipes: {', '.join(shipped_recipes())}")
    return path


def load_config(recipe: str, overrides: list[str] | None = None) -> RunConfig:
    """The resolved configuration. Raises ConfigError with one line per problem."""
    path = recipe_path(recipe)
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    for key, value in list(tree.items()):
        if _spelled_out(key) != key and isinstance(value, str):
            tree[key] = {"variant": value}
    return validate(merge(tree, parse_overrides(overrides or [])), source=str(path), overrides=overrides or [])


def validate(tree: dict[str, Any], source: str, overrides: Sequence[str] = ()) -> RunConfig:
    """A plain tree -> RunConfig; ConfigError names place, key, value and what is allowed."""
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        allowed = {knob.key: knob.allowed for knob in knobs(RunConfig)}
        lines = []
        for problem in error.errors():
            key = ".".join(part for part in problem["loc"] if isinstance(part, str))  # of a list, the list
            if problem["type"] == "extra_forbidden":
                lines.append(f"{key} = {problem['input']!r}: unknown key; {_nearest(key, list(allowed))}")
            elif problem["type"] == "value_error" and not key:
                lines += str(problem["ctx"]["error"]).splitlines()
            elif problem["type"] == "value_error":
                lines.append(f"{key} = {problem['input']!r}: {problem['ctx']['error']}")
            elif key in allowed:
                lines.append(f"{key} = {problem['input']!r}: must be {allowed[key]}")
            else:
                lines.append(
                    f"{key} = {problem['input']!r}: is a section; set one of its keys, as in {key}.key = value"
                )
        from_command_line = {_spelled_out(item.partition("=")[0]) for item in overrides}
        places = ["command line" if line.split(" = ")[0] in from_command_line else source for line in lines]
        text = "\n".join(f"{place}: {hidden_password(line)}" for place, line in zip(places, lines, strict=True))
        raise ConfigError(text) from error


def _nearest(key: str, keys: list[str]) -> str:
    if key in _RENAMED:
        return f"did you mean {_RENAMED[key]}?"
    moved = [known for known in keys if known.rpartition(".")[2] == key.rpartition(".")[2]]
    close = difflib.get_close_matches(key, moved or keys, n=1, cutoff=0.0 if moved else 0.5)
    return f"did you mean {close[0]}?" if close else "`t2po config RECIPE` prints all keys"
