"""The section `collapse`: what it refuses, and how the command line says so."""

from __future__ import annotations

import pytest

from controller.config import ConfigError, load_config
from controller.knobs import knobs


def message(*changes: str) -> str:
    with pytest.raises(ConfigError) as error:
        load_config("alfworld", list(changes))
    return str(error.value)


@pytest.mark.parametrize(
    ("change", "piece"),
    [
        ('collapse.on_collapse=["notify", "explode"]', "collapse.on_collapse = 'explode': must be list of"),
        ("collapse.on_warning=notify", 'must be list of "notify"'),
        ('collapse.on_warning=["notify", "notify"]', "name each once"),
        ("collapse.webhook=example.com", "must begin with http"),
        ("collapse.entropy_low=1.5", "collapse.entropy_low = 1.5: must be number > 0"),
        ("collapse.steps_to_enter=0", "must be whole number ≥ 1"),
        ("collapse.max_rollbacks=-1", "must be whole number ≥ 0"),
        ("collapse.success_drop=0", "must be number > 0"),
        ("collapse.windw=3", "did you mean collapse.window?"),
    ],
)
def test_a_mistake_is_one_line_with_value_place_and_remedy(change: str, piece: str) -> None:
    text = message(change)
    assert text.startswith("command line: ") and len(text.splitlines()) == 1
    assert piece in text


def test_lists_of_actions_are_read_from_the_command_line() -> None:
    config = load_config("alfworld", ['collapse.on_collapse=["rollback", "notify"]', "collapse.on_warning=[]"])
    assert config.collapse.on_collapse == ("rollback", "notify")
    assert config.collapse.on_warning == ()


def test_a_knob_that_is_a_list_says_what_it_holds() -> None:
    allowed = {knob.key: knob.allowed for knob in knobs(type(load_config("alfworld")))}
    assert allowed["collapse.on_warning"].startswith('list of "notify", "checkpoint"')
