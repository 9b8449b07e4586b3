"""Which start policy a run gets: cached under what decides it, never overwritten, refused early when it cannot fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller import base_policy, coldstart
from controller.cli import main
from controller.coldstart import fingerprint, prepare_policy
from controller.coldstart_command import write_policy
from controller.config import load_config
from controller.policy_folder import PolicyError
from tests.integration.random_policy import build_tokenizer
from tests.unit.test_train_bad_input import policy_folder, word_tokenizer

MARKERS = ("<think>", "</think>", "<action>", "</action>")


def never(*_: object) -> None:
    raise AssertionError("nothing was to be built")


@pytest.mark.parametrize(
    "override",
    ["coldstart.max_duration_s=100", "coldstart.num_threads=2", "coldstart.num_ranks=1", "coldstart.lr=1e-3", "seed=1"],
)
def test_coldstart_fingerprint_tells_what_decides_the_policy(override: str) -> None:
    assert fingerprint(load_config("alfworld", [override])) != fingerprint(load_config("alfworld"))


def test_coldstart_fingerprint_of_an_expert_s_pupil_is_the_one_of_earlier_versions() -> None:
    """Cached start policies stay good; knobs of another source, or that decide nothing, do not count."""
    facts = coldstart.facts(load_config("alfworld"))["coldstart"]
    assert set(facts) == {
        "num_trajectories", "detour_rate", "kept_searches", "kept_detours", "prompt_loss_weight", "epochs", "lr",
        "batch_tokens", "max_duration_s", "num_ranks", "num_threads",
    }  # fmt: skip
    other = load_config("alfworld", ["coldstart.min_score=0.5", "coldstart.save_every_s=1", "coldstart.evaluate=false"])
    assert fingerprint(other) == fingerprint(load_config("alfworld"))


@pytest.mark.parametrize(
    "override",
    ["coldstart.min_score=0.5", "coldstart.max_per_task=1", "coldstart.samples_per_task=2", "tti.enabled=false",
     "tds.eta=0.1"],
)  # fmt: skip
def test_coldstart_fingerprint_of_a_policy_s_own_pupil_tells_how_it_played(override: str) -> None:
    own = ["coldstart.source=policy"]
    assert fingerprint(load_config("alfworld", [*own, override])) != fingerprint(load_config("alfworld", own))
    assert fingerprint(load_config("alfworld", own)) != fingerprint(load_config("alfworld"))


def test_coldstart_fingerprint_tells_the_weights_of_a_given_policy(tmp_path: Path) -> None:
    folder = policy_folder(tmp_path / "policy", word_tokenizer(*MARKERS))
    config = load_config("alfworld", ["coldstart.source=policy", f"model={folder}"])
    before = fingerprint(config)
    (folder / coldstart.PAGE).write_text("{}")
    assert fingerprint(config) == before
    (folder / "model.safetensors").write_bytes(b"others")
    assert fingerprint(config) != before


def test_coldstart_fingerprint_is_shared_by_runs_that_differ_later() -> None:
    other = load_config("alfworld", ["tti.enabled=false", "learner.lr=1e-4", "steps=3"])
    assert fingerprint(other) == fingerprint(load_config("alfworld"))


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch])
def test_coldstart_command_refuses_what_is_there(make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    make(tmp_path / "mine")
    assert main(["coldstart", "alfworld", "--to", str(tmp_path / "mine"), f"runs_dir={tmp_path}"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"--to {tmp_path / 'mine'}: exists already" in captured.err and "remove it" in captured.err


def test_coldstart_command_has_nothing_to_build_for_a_given_policy(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="nothing to build"):
        write_policy(load_config("alfworld", [f"model={tmp_path}"]), tmp_path / "new", print)


def test_coldstart_of_a_resumed_run_is_the_run_s_own_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the cache is gone, or kept under another name by then."""
    monkeypatch.setattr(coldstart, "_build", never)
    folder = policy_folder(tmp_path / "policy", word_tokenizer(*MARKERS))
    config = load_config("alfworld", [f"runs_dir={tmp_path}"])
    said: list[str] = []
    assert prepare_policy(config, folder, said.append) == folder
    assert said == []


def test_coldstart_policy_with_a_tokenizer_that_leaves_tti_no_room(tmp_path: Path) -> None:
    """`<think>` in one token, the queue in three: the config's own check lets this pass by one token."""
    folder = policy_folder(tmp_path / "policy", build_tokenizer())
    changes = [f"model={folder}", "tti.think_cap=56", "inference.response_tokens=61"]
    assert prepare_policy(load_config("alfworld", changes), tmp_path / "new", print) == folder
    spelled = policy_folder(tmp_path / "spelled", _tokenizer_that_spells())
    changes[0] = f"model={spelled}"
    with pytest.raises(ValueError, match=r"tti.think_cap = 56: .* set inference.response_tokens to \d+ or more"):
        prepare_policy(load_config("alfworld", changes), tmp_path / "new", print)
    load_config("alfworld", changes)  # which no check without the tokenizer can know
    prepare_policy(load_config("alfworld", [*changes, "tti.enabled=false"]), tmp_path / "new", print)


@pytest.mark.parametrize(
    ("override", "piece"),
    [
        ("inference.prompt_tokens=192", "inference.prompt_tokens = 192: a demonstrated prompt has"),
        ("inference.response_tokens=61", "inference.response_tokens = 61: "),
    ],
)
def test_coldstart_of_smollm2_says_early_what_does_not_fit(
    override: str, piece: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a tokenizer that needs a token for each character, before the many demonstrations are collected."""
    from learner import smollm2

    collected: list[int] = []
    collect = base_policy.collect_demonstrations

    def watched(config):  # type: ignore[no-untyped-def]
        collected.append(config.coldstart.num_trajectories)
        return collect(config)

    monkeypatch.setattr(base_policy, "collect_demonstrations", watched)
    monkeypatch.setattr(coldstart, "collect_demonstrations", never)
    folder = policy_folder(tmp_path / "smollm2", build_tokenizer())
    monkeypatch.setattr(smollm2, "fetch_smollm2", lambda cache: folder)
    changes = [f"runs_dir={tmp_path}", "model=smollm2", "inference.prompt_tokens=4000", override]
    with pytest.raises(PolicyError, match=piece) as caught:
        prepare_policy(load_config("alfworld", changes), tmp_path / "policy", print)
    assert "alfworld-smollm2" in str(caught.value)
    assert collected == [base_policy.PROBED_TRAJECTORIES]


def _tokenizer_that_spells():  # type: ignore[no-untyped-def]
    """The markers in a token for each character, as a tokenizer writes them that has never heard of them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>")
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    return tokenizer
