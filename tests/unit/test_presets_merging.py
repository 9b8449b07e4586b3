"""Named algorithms: every preset is valid, recipes lie over it, overrides over both."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from controller.config import ConfigError, RunConfig, load_config, merge, recipe_path
from controller.config_text import as_toml
from learner.presets import ALGORITHMS, UnknownAlgorithm, preset
from learner.settings import AdvantageSettings, CriticSettings, LossSettings

SECTIONS = {"advantage": AdvantageSettings, "loss": LossSettings, "critic": CriticSettings}


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_every_preset_fits_its_sections(name: str) -> None:
    for section, values in preset(name).items():
        SECTIONS[section].model_validate(values)


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_every_preset_says_which_estimator_loss_and_groups(name: str) -> None:
    """What one preset sets for itself another must not get from a default that may change."""
    sections = preset(name)
    assert {"estimator", "keep_groups"} <= set(sections["advantage"])
    assert {"policy", "aggregation"} <= set(sections["loss"])


@pytest.mark.parametrize(
    ("name", "section", "key", "value"),
    [
        ("dapo", "loss", "clip_high", 0.28),
        ("dapo", "advantage", "keep_groups", "mixed_success"),
        ("gspo", "loss", "clip_low", 3e-4),
        ("gspo", "loss", "clip_high", 4e-4),
        ("sampo", "loss", "clip_low", 3e-3),
        ("sampo", "loss", "clip_high", 4e-3),
        ("sampo", "advantage", "estimator", "gigpo"),
        ("gigpo", "loss", "dual_clip", 3.0),
        ("dr_grpo", "loss", "aggregation", "constant"),
        ("ppo", "advantage", "estimator", "gae"),
        ("rloo", "loss", "kl_estimator", "k1"),
    ],
)
def test_published_settings(name: str, section: str, key: str, value: object) -> None:
    assert preset(name)[section][key] == value


def test_recipe_over_preset_and_overrides_over_both(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text('algorithm = "dapo"\n[loss]\nclip_high = 0.5\nkl_coef = 0.01\n[learner]\nlr = 1e-3\n')
    config = load_config(str(recipe), ["loss.clip_high=0.7", "advantage.gamma=0.5"])
    assert (config.loss.clip_high, config.loss.kl_coef, config.loss.clip_low) == (0.7, 0.01, 0.2)
    assert (config.advantage.estimator, config.advantage.keep_groups) == ("grpo", "mixed_success")
    assert (config.advantage.gamma, config.learner.lr) == (0.5, 1e-3)


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_an_algorithm_is_one_override(name: str, tmp_path: Path) -> None:
    config, recipe = load_config("alfworld", [f"algorithm={name}"]), tomllib.loads(recipe_path("alfworld").read_text())
    assert config.algorithm == name
    for section, values in preset(name).items():
        for key, value in values.items():
            assert getattr(getattr(config, section), key) == recipe.get(section, {}).get(key, value)
    again = tmp_path / "again.toml"
    again.write_text(as_toml(config), encoding="utf-8")
    assert load_config(str(again)) == config


def test_the_default_algorithm_changes_no_default() -> None:
    config = RunConfig()
    assert config.algorithm == "gigpo"
    assert (config.advantage, config.loss, config.critic) == (AdvantageSettings(), LossSettings(), CriticSettings())


def test_nothing_that_is_merged_changes_a_preset() -> None:
    before = preset("gspo")
    merged = merge(preset("gspo"), {})
    merged["loss"]["clip_low"] = 0.9
    preset("gspo")["loss"]["clip_low"] = 0.9
    assert preset("gspo") == before


def test_an_unknown_algorithm_is_named_with_the_nearest() -> None:
    with pytest.raises(UnknownAlgorithm, match="unknown algorithm; did you mean grpo\\? use one of dapo, dr_grpo"):
        preset("grop")
    with pytest.raises(ConfigError, match="command line: algorithm = 'grop': unknown algorithm; did you mean grpo"):
        load_config("alfworld", ["algorithm=grop"])


def test_every_problem_is_reported_beside_an_unknown_algorithm() -> None:
    with pytest.raises(ConfigError, match=r"algorithm = 'grop'[^\0]*seed = -1|seed = -1[^\0]*algorithm = 'grop'"):
        load_config("alfworld", ["algorithm=grop", "seed=-1"])
