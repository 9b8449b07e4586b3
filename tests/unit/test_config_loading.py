"""Recipes and overrides to a RunConfig, and the message for each way in which that can fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.config import ConfigError, RunConfig, load_config, parse_overrides, shipped_recipes


def recipe(tmp_path: Path, text: str = "") -> str:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def failure(tmp_path: Path, *overrides: str, text: str = "") -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(recipe(tmp_path, text), list(overrides))
    return str(caught.value)


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_load(name: str) -> None:
    assert isinstance(load_config(name), RunConfig)


def test_an_empty_recipe_is_the_defaults(tmp_path: Path) -> None:
    assert load_config(recipe(tmp_path)) == RunConfig()


def test_overrides_win_over_the_recipe_section_by_section(tmp_path: Path) -> None:
    text = "seed = 1\n[tti]\nepsilon = 0.5\nenabled = true\n"
    config = load_config(
        recipe(tmp_path, text), ["tti.enabled=false", "seed=2", "model=path/to=model", "learner.lr=3e-4"]
    )
    assert (config.seed, config.tti.enabled, config.tti.epsilon) == (2, False, 0.5)
    assert (config.model, config.learner.lr) == ("path/to=model", 3e-4)


@pytest.mark.parametrize(
    ("override", "pieces"),
    [
        ("tti.thnk_cap=9", ["tti.thnk_cap = 9", "unknown key", "did you mean tti.think_cap"]),
        ("learner.kl_coef=0.1", ["unknown key", "did you mean loss.kl_coef?"]),
        ("learner.clip_low=0.1", ["unknown key", "did you mean loss.clip_low?"]),
        ("learner.entropy_coef=0.1", ["unknown key", "did you mean loss.entropy_coef?"]),
        ("advantage.algorithm=grpo", ["unknown key", "did you mean advantage.estimator?"]),
        ("zzz=1", ["zzz = 1", "unknown key", "t2po config"]),
        ("seed=-1", ["seed = -1", "whole number ≥ 0, < 2147483648"]),
        ("seed=1.5", ["seed = 1.5", "whole number"]),
        ("steps=many", ["steps = 'many'", "whole number ≥ 0"]),
        ("learner.lr=2", ["learner.lr = 2", "number > 0, < 1"]),
        ("learner.lr=nan", ["learner.lr = nan", "number > 0, < 1"]),
        ("learner.lr=inf", ["learner.lr = inf"]),
        ("tti.enabled=perhaps", ["tti.enabled = 'perhaps'", "true, false"]),
        ("env.prompt=long", ["env.prompt = 'long'", '"full", "compact"']),
        ("learner.zero_stage=4", ["learner.zero_stage = 4", "0, 1, 2, 3"]),
        ("env=3", ["env = 3", "is a section"]),
        ("tti=3", ["tti.variant = 3", '"paper", "budget", "off"']),
        ("tds=void", ["tds.variant = 'void'", '"paper", "void_turn", "off"']),
        ("seed.x=3", ["seed = {'x': 3}", "whole number"]),
        ("tti.window=1001", ["tti.window = 1001", "≤ 1000"]),
        ("metrics.port=70000", ["metrics.port = 70000", "≤ 65535"]),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(tmp_path: Path, override: str, pieces: list[str]) -> None:
    message = failure(tmp_path, override)
    for piece in pieces:
        assert piece in message, message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("overrides", "piece"),
    [
        (
            ["tti.think_cap=56", "inference.response_tokens=57"],
            "tti.think_cap = 56: must be below inference.response_tokens - 4 = 53, or it never acts",
        ),
        (["tti.think_cap=60", "inference.response_tokens=64"], "tti.think_cap = 60: must be below inference.response_"),
        (["tti.window=39", "tti.think_cap=40"], "tti.window = 39: must be below tti.think_cap - 1 = 39"),
        (["tti.min_tokens=40", "tti.think_cap=40"], "tti.min_tokens = 40: must be below tti.think_cap = 40"),
        (["rollout.group_size=1"], "rollout.group_size = 1: advantage.estimator = 'gigpo' compares siblings"),
        (
            ["rollout.group_size=1", "advantage.estimator=gae", "advantage.keep_groups=mixed_success"],
            'advantage.keep_groups = "mixed_success" would drop every group',
        ),
        (["critic.warmup_steps=3", "steps=3"], "critic.warmup_steps = 3: must be below steps = 3, or the policy"),
        (["env.eval_panel=train"], "env.eval_panel = 'train': must differ from env.train_panel"),
        (["queue.max_groups=23"], "queue.max_groups = 23: must hold rollout.groups_per_step x"),
    ],
)
def test_impossible_combinations_are_named(tmp_path: Path, overrides: list[str], piece: str) -> None:
    assert piece in failure(tmp_path, *overrides, text="[rollout]\ngroups_per_step = 8\nmax_staleness = 1\n")


@pytest.mark.parametrize("estimator", ["gae", "reinforce"])
def test_a_group_of_one_is_enough_without_siblings_to_compare(tmp_path: Path, estimator: str) -> None:
    load_config(recipe(tmp_path), ["rollout.group_size=1", f"advantage.estimator={estimator}"])


def test_the_longest_think_cap_that_can_act_is_accepted(tmp_path: Path) -> None:
    load_config(recipe(tmp_path), ["tti.think_cap=56", "inference.response_tokens=61", "tti.window=54"])


def test_a_think_cap_above_the_reply_is_fine_when_tti_is_off(tmp_path: Path) -> None:
    load_config(recipe(tmp_path), ["tti.enabled=false", "tti.think_cap=400"])


def test_every_problem_is_reported_with_its_place(tmp_path: Path) -> None:
    lines = failure(tmp_path, "seed=-1", text="steps = -3\nnonsense = 1\n").splitlines()
    assert len(lines) == 3
    assert [line for line in lines if line.startswith("command line: seed = -1")]
    assert [line for line in lines if line.startswith(f"{tmp_path}/mine.toml: steps = -3")]


@pytest.mark.parametrize("text", ["seed=", "seed", "=3", "a b"])
def test_what_is_no_override_is_said_so(text: str) -> None:
    if text == "seed=":
        assert parse_overrides([text]) == {"seed": ""}
    else:
        with pytest.raises(ConfigError, match="key=value"):
            parse_overrides([text])


def test_a_key_cannot_be_value_and_section() -> None:
    with pytest.raises(ConfigError, match="a value already"):
        parse_overrides(["seed=1", "seed.x=2"])


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"shipped recipes: .*alfworld"):
        load_config("no-such-recipe")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(recipe(tmp_path, "seed = = 1"))
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(str(binary))
    folder = tmp_path / "folder.toml"
    folder.mkdir()
    with pytest.raises(ConfigError, match="no such file"):
        load_config(str(folder))


@pytest.mark.parametrize("written", ["tti = 'budget'", "[tti]\nvariant = 'budget'"])
def test_a_variant_may_stand_for_its_section(tmp_path: Path, written: str) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(written)
    config = load_config(str(recipe), ["tti.think_cap=30", "tds=void_turn", "tti.signal=entropy"])
    assert (config.tti.acts, config.tti.think_cap, config.tti.signal) == ("budget", 30, "entropy")
    assert config.tds.acts == "void_turn"
    assert load_config(str(recipe), ["tti=off"]).tti.acts == "off"


def test_switched_off_is_the_variant_off() -> None:
    config = load_config("alfworld", ["tti.enabled=false", "tds.enabled=false"])
    assert (config.tti.acts, config.tds.acts) == ("off", "off")
    assert (load_config("alfworld").tti.acts, load_config("alfworld").tds.acts) == ("paper", "paper")
