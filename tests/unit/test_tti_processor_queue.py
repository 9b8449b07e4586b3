"""Corner cases of the forced queue, and what a request may ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from vllm import SamplingParams
from vllm.sampling_params import StructuredOutputsParams

from actors.settings import TTISettings
from actors.think_markers import DEFAULT_QUEUE, MarkerError, build_automaton, check_cap_acts, queue_tokens
from actors.tti_plugin import TTI
from actors.tti_processor import TTIProcessorV1
from actors.tti_request import PREFIX
from tests.unit.fake_batch import FakeRequest, PieceTokenizer, batch_over, fake_request, processor_over, run_alone

PIECES = ["<think>", "</think>", "<action>", "</action>", "\n", "<end>", *(f"w{i} " for i in range(58))]
OPEN, CLOSE, ACT, LINE, END = 0, 1, 2, 4, 5
QUEUE = [CLOSE, LINE, ACT]
WORD = 10


def new_processor(pieces: list[str] = PIECES) -> TTIProcessorV1:
    return processor_over(pieces, 4, 256)


def scripted(tokens: dict[int, int], sharpness: Callable[[int], float], otherwise: int = WORD) -> Any:
    """Logits under which token `tokens[position]` is certain, as sharp as `sharpness(position)` says."""

    def at(position: int) -> np.ndarray:
        row = np.zeros(len(PIECES), np.float32)
        row[6:] = np.linspace(0, 1, len(PIECES) - 6)
        row[tokens.get(position, otherwise)] = sharpness(position)
        return row

    return at


def falling(position: int) -> float:
    """Uncertain at first (low sharpness), then settling: M peaks at position 2 and stays low from 4 on."""
    return 25.0 if position == 0 else {1: 20.0, 2: 14.0, 3: 24.0}.get(position, 40.0 + 0.001 * position)


def run(
    at: Any, max_tokens: int = 30, processor: TTIProcessorV1 | None = None, **asked: Any
) -> tuple[FakeRequest, dict[str, Any]]:
    asked = {"epsilon": 0.02, "window": 2, "min_tokens": 2, "think_cap": 100, "top_j": 5} | asked
    request = fake_request("r", at, 0, max_tokens, **asked)
    return request, run_alone(processor or new_processor(), request)


def test_the_queue_appears_exactly_once_and_then_the_model_goes_on() -> None:
    request, statistics = run(scripted({0: OPEN}, falling))
    assert statistics["fired"] == "uncertainty"
    at = statistics["fired_at"]
    assert request.output == [OPEN] + [WORD] * (at - 1) + QUEUE + [WORD] * (30 - at - 3)
    assert statistics["num_forced"] == 3 and statistics["num_think_tokens"] == at - 1
    m = np.frombuffer(statistics["history"], np.float32).reshape(-1, 3)[:, 2]
    assert np.isnan(m[at : at + 3]).all() and not np.isnan(np.delete(m, range(at, at + 3))).any()


def test_it_never_fires_at_the_peak_and_the_window_lies_behind_it() -> None:
    _, statistics = run(scripted({0: OPEN}, falling))
    m = np.frombuffer(statistics["history"], np.float32).reshape(-1, 3)[:, 2]
    at = statistics["fired_at"]
    peak = 1 + int(np.nanargmax(m[1:at]))
    assert at - 2 > peak  # the window is |ΔM| at at-2 .. at


def test_a_peak_inside_the_window_holds_it_back() -> None:
    """Saturated from position 4 on, but the maximum comes at position 12 (the 12th thinking token)."""

    def sharpness(position: int) -> float:
        return {0: 25.0, 1: 20.0, 12: 15.0}.get(position, 35.0)

    _, without = run(scripted({0: OPEN}, sharpness), max_tokens=15, min_tokens=9)
    assert (without["fired"], without["fired_at"]) == ("uncertainty", 10)
    for window in (1, 2, 5):
        _, held = run(scripted({0: OPEN}, sharpness), max_tokens=40, min_tokens=11, epsilon=1.0, window=window)
        assert held["fired_at"] == 12 + window + 1


def test_a_thought_that_keeps_rising_is_at_its_peak_and_goes_on() -> None:
    _, statistics = run(scripted({0: OPEN}, lambda position: 30.0 - 1e-3 * position), epsilon=1.0)
    assert statistics["fired"] == ""


def test_min_tokens_holds_it_back() -> None:
    for min_tokens in (6, 9, 14):
        _, statistics = run(scripted({0: OPEN}, falling), min_tokens=min_tokens)
        assert statistics["fired_at"] == 1 + max(min_tokens, 6), min_tokens


def test_the_cap_leaves_exactly_that_many_thinking_tokens() -> None:
    for cap in (1, 2, 7):
        request, statistics = run(scripted({0: OPEN}, falling), think_cap=cap, epsilon=0.0)
        assert (statistics["fired"], statistics["fired_at"]) == ("cap", 1 + cap)
        assert statistics["num_think_tokens"] == cap
        assert request.output[1 + cap : 4 + cap] == QUEUE


def test_uncertainty_and_cap_in_one_step_are_one_firing_named_uncertainty() -> None:
    _, alone = run(scripted({0: OPEN}, falling))
    request, both = run(scripted({0: OPEN}, falling), think_cap=alone["fired_at"] - 1)
    assert (both["fired"], both["fired_at"]) == ("uncertainty", alone["fired_at"])
    assert request.output.count(CLOSE) == 1


def test_nothing_is_forced_outside_a_thought() -> None:
    request, statistics = run(scripted({}, falling), think_cap=1)
    assert statistics["fired"] == "" and CLOSE not in request.output
    request, statistics = run(scripted({0: OPEN, 1: CLOSE}, falling), think_cap=1, max_tokens=20)
    assert statistics["fired"] == "" and request.output[1] == CLOSE and request.output.count(CLOSE) == 1


def test_the_model_closing_at_the_very_step_of_the_cap_gives_one_marker() -> None:
    closes_itself = scripted({0: OPEN, 5: CLOSE}, falling)
    request, statistics = run(closes_itself, think_cap=4, epsilon=0.0)
    assert (statistics["fired"], statistics["fired_at"]) == ("cap", 5)
    assert request.output.count(CLOSE) == 1
    request, statistics = run(closes_itself, think_cap=5, epsilon=0.0)
    assert statistics["fired"] == "" and request.output.count(CLOSE) == 1 and statistics["num_think_tokens"] == 4


def test_a_second_thought_is_not_a_thought() -> None:
    request, statistics = run(scripted({0: OPEN, 12: OPEN}, falling), think_cap=3, max_tokens=40)
    assert statistics["fired_at"] == 4 and request.output.count(CLOSE) == 1


@pytest.mark.parametrize("room", [0, 1, 2, 3, 4])
def test_a_queue_that_does_not_fit_is_not_begun(room: int) -> None:
    """The cap acts at token 6; `room` tokens are left then."""
    request, statistics = run(scripted({0: OPEN}, falling), think_cap=5, epsilon=0.0, max_tokens=6 + room)
    assert len(request.output) == 6 + room
    if room < 3:
        assert statistics["fired"] == "" and CLOSE not in request.output
    else:
        assert statistics["fired"] == "cap" and request.output[6:9] == QUEUE


@pytest.mark.parametrize("pieces", [PIECES, ["<", ">", "/", "think", "action", "\n"]])
def test_the_least_reply_that_the_settings_allow_is_one_in_which_the_cap_acts(pieces: list[str]) -> None:
    tokenizer, tti = PieceTokenizer(pieces), TTISettings(think_cap=5)
    needed = len(tokenizer.encode("<think></think>\n<action>", add_special_tokens=False)) + 5 + 1
    check_cap_acts(tokenizer, tti, needed, DEFAULT_QUEUE)
    with pytest.raises(
        MarkerError, match=f"tti.think_cap = 5: .*{needed - 1}, .*set inference.response_tokens to {needed} "
    ):
        check_cap_acts(tokenizer, tti, needed - 1, DEFAULT_QUEUE)
    check_cap_acts(tokenizer, TTISettings(think_cap=5, enabled=False), 4, DEFAULT_QUEUE)
    if pieces is PIECES:
        request, statistics = run(scripted({0: OPEN}, falling), think_cap=5, epsilon=0.0, max_tokens=needed)
        assert statistics["fired"] == "cap" and len(request.output) == statistics["fired_at"] + 3 + 1


def test_an_end_token_right_after_the_queue_ends_the_reply() -> None:
    request = fake_request("r", scripted({0: OPEN, 9: END}, falling), 0, 30, think_cap=5, epsilon=0.0, eos=END)
    statistics = run_alone(new_processor(), request)
    assert request.output == [OPEN] + [WORD] * 5 + QUEUE + [END]
    assert statistics["num_forced"] == 3


@pytest.mark.parametrize("shown", [1, 2, 3])
def test_a_stop_in_the_middle_of_the_queue_counts_what_was_forced(shown: int) -> None:
    """A stop string may be found in the queue itself: vLLM ends the reply there, whatever was still to be forced."""
    processor = new_processor()
    request = fake_request("r", scripted({0: OPEN}, falling), 0, 30, think_cap=5, epsilon=0.0)
    batch = batch_over(processor)
    batch.add(request)
    while len(request.output) < 6 + shown:
        batch.step()
    batch.remove(request)
    statistics = processor.take([("r", request.output)])[0]
    assert statistics is not None
    assert (statistics["fired"], statistics["fired_at"], statistics["num_forced"]) == ("cap", 6, shown)
    assert request.output[6:] == QUEUE[:shown] and statistics["num_think_tokens"] == 5


def test_a_stop_in_the_step_in_which_it_fires_leaves_no_firing() -> None:
    """The reply ends with the token before: the firing was measured one step ahead (async scheduling) and is undone."""
    processor = new_processor()
    request = fake_request("r", scripted({0: OPEN}, falling), 0, 30, think_cap=5, epsilon=0.0)
    batch = batch_over(processor)
    batch.add(request)
    while len(request.output) < 7:
        batch.step()
    statistics = processor.take([("r", request.output[:6])])[0]
    assert statistics is not None
    assert (statistics["fired"], statistics["fired_at"], statistics["num_forced"]) == ("", -1, 0)
    assert statistics["num_think_tokens"] == 5


def test_tti_off_measures_the_same_and_forces_nothing() -> None:
    free, statistics = run(scripted({0: OPEN}, falling), tti="off", think_cap=3)
    assert statistics["fired"] == "" and free.output == [OPEN] + [WORD] * 29
    assert not np.isnan(np.frombuffer(statistics["history"], np.float32)).any()


def test_a_one_token_reply_is_measured_in_the_middle() -> None:
    _, statistics = run(scripted({0: OPEN}, falling), max_tokens=1)
    assert np.frombuffer(statistics["history"], np.float32)[2] == np.float32(0.5)
    carried = [0.0, 1e-5, 50.0, 60.0]
    _, statistics = run(scripted({0: OPEN}, falling), max_tokens=1, range=carried)
    assert statistics["range"][3] == 60.0


def test_the_prompt_may_have_opened_the_thought() -> None:
    request, statistics = run(scripted({}, falling), starts_inside=True, think_cap=4, epsilon=0.0)
    assert request.output[4:7] == QUEUE and statistics["num_think_tokens"] == 4


def test_each_request_may_have_its_own_queue() -> None:
    request, _ = run(scripted({0: OPEN}, falling), think_cap=4, epsilon=0.0, queue="</think>\n")
    assert request.output[5:8] == [CLOSE, LINE, WORD]


def test_markers_of_several_tokens_meet_in_any_spelling() -> None:
    pieces = ["<", "</", "think", ">", ">\n", "action", "\n", "></", "x", " "]
    automaton = build_automaton(pieces)
    tokenizer = PieceTokenizer(pieces)
    assert "".join(pieces[t] for t in queue_tokens(tokenizer, "</think>\n<action>", automaton)) == "</think>\n<action>"
    rng = np.random.default_rng(0)
    for _ in range(2000):
        tokens = [int(t) for t in rng.integers(0, len(pieces), size=rng.integers(1, 40))]
        if rng.random() < 0.7:
            tokens[:0] = [0, 2, int(rng.choice([3, 4, 7]))]
        if rng.random() < 0.7:
            tokens += [1, 2, int(rng.choice([3, 4]))]
        text = "".join(pieces[t] for t in tokens)
        opened = text.find("<think>")
        closed = text.find("</think>", opened + 7) if opened >= 0 else -1
        state = automaton.run(0, tokens)
        assert (state >= automaton.first_inside) == (opened >= 0), text
        assert (state == automaton.done) == (closed >= 0), text


def test_the_end_of_a_marker_that_the_model_is_writing_is_not_cut() -> None:
    pieces = ["<think>", "</", "think", ">", "<action>", "\n", *(f"w{i} " for i in range(58))]
    automaton = build_automaton(pieces)
    assert automaton.run(automaton.first_inside, [1]) > automaton.first_inside
    tokenizer = PieceTokenizer(pieces)
    processor = processor_over(pieces, 2)

    def at(position: int) -> np.ndarray:
        row = np.zeros(len(pieces), np.float32)
        row[{0: 0, 7: 1, 8: 2, 9: 3}.get(position, 10)] = falling(position)
        return row

    request = fake_request("r", at, 0, 20, epsilon=0.02, window=2, min_tokens=7, top_j=5)
    statistics = run_alone(processor, request)
    text = tokenizer.decode(request.output)
    assert statistics["fired"] == "" and text.count("</think>") == 1 and "</</" not in text


def test_a_tokenizer_that_cannot_write_the_queue_is_refused() -> None:
    pieces = [piece for piece in PIECES if piece != "<action>"]
    with pytest.raises(MarkerError, match="<action>"):
        queue_tokens(PieceTokenizer(pieces), "</think>\n<action>", build_automaton(pieces))
    request, statistics = run(lambda position: np.zeros(len(pieces), np.float32), processor=new_processor(pieces))
    assert "<action>" in statistics["problem"] and len(request.output) == 30
    no_space = [piece for piece in PIECES if piece != "\n"]
    assert queue_tokens(PieceTokenizer(no_space), "</think>\n<action>", build_automaton(no_space)) == [1, 2]
    with pytest.raises(MarkerError, match="does not end a thought"):
        queue_tokens(PieceTokenizer(PIECES), "<action>", build_automaton(PIECES))


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"id": ""}, "t2po_id = ''"),
        ({"id": 3}, "t2po_id = 3"),
        ({"epsilom": 1}, "t2po_epsilom: unknown"),
        ({"alpha": 2}, "t2po_alpha = 2"),
        ({"alpha": "much"}, "t2po_alpha = 'much'"),
        ({"window": 0}, "t2po_window = 0"),
        ({"window": 2.5}, "t2po_window = 2.5"),
        ({"range": [1, 2]}, "t2po_range"),
        ({"range": "1234"}, "t2po_range"),
        ({"tti": "on"}, "t2po_tti = 'on'"),
        ({"signal": "entropie"}, "t2po_signal = 'entropie'"),
        ({"queue": ""}, "t2po_queue"),
        ({"queue": "\n<action>"}, "t2po_queue = .* must be a text with </think>"),
        ({"starts_inside": "yes"}, "t2po_starts_inside"),
    ],
)
def test_a_request_that_asks_for_nonsense_is_refused(asked: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        TTI.validate_params(SamplingParams(extra_args={PREFIX + key: value for key, value in asked.items()}))


def test_an_id_names_one_reply() -> None:
    with pytest.raises(ValueError, match="t2po_id with n = 2"):
        TTI.validate_params(SamplingParams(n=2, extra_args={"t2po_id": "a"}))
    TTI.validate_params(SamplingParams(n=2, extra_args={"t2po_epsilon": 0.1}))
    TTI.validate_params(SamplingParams(n=2, extra_args={"somebody_elses": 1}))


def test_the_budget_alone_ends_a_thought_at_the_cap() -> None:
    _, statistics = run(scripted({0: OPEN}, falling), tti="budget", epsilon=9.0, think_cap=15)
    assert (statistics["fired"], statistics["fired_at"]) == ("cap", 16)
    steady = scripted({0: OPEN}, lambda position: 40.0)
    _, statistics = run(steady, tti="budget", signal="release", think_cap=28, max_tokens=40)
    assert (statistics["fired"], statistics["fired_at"]) == ("cap", 29)


def test_the_release_rule_fires_after_twenty_equal_values() -> None:
    """21 thinking tokens give 20 differences; the 22nd token is the first forced one, wherever the peak is."""
    same = {"signal": "release", "think_cap": 28, "max_tokens": 40}
    _, statistics = run(scripted({0: OPEN}, lambda position: 40.0), epsilon=0.0, window=1, **same)
    assert (statistics["fired"], statistics["fired_at"]) == ("uncertainty", 21)
    _, statistics = run(scripted({0: OPEN}, lambda position: 40.0 if position != 10 else 6.0), **same)
    assert (statistics["fired"], statistics["fired_at"]) == ("cap", 29)


@pytest.mark.parametrize(("signal", "alpha"), [("entropy", 1.0), ("confidence", 0.0)])
def test_a_part_of_the_signal_alone_is_the_papers_with_its_weight(signal: Any, alpha: float) -> None:
    _, alone = run(scripted({0: OPEN}, falling), signal=signal)
    _, weighted = run(scripted({0: OPEN}, falling), alpha=alpha)
    _, other = run(scripted({0: OPEN}, falling))
    assert alone == weighted != other


def test_a_grammar_and_a_forced_end_do_not_go_together() -> None:
    grammar = StructuredOutputsParams(regex="[a-z]*")
    with pytest.raises(ValueError, match="structured output"):
        TTI.validate_params(SamplingParams(structured_outputs=grammar, extra_args={"t2po_think_cap": 5}))
    TTI.validate_params(SamplingParams(structured_outputs=grammar, extra_args={"t2po_tti": "off"}))
    TTI.validate_params(SamplingParams(structured_outputs=grammar))
