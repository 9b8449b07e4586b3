"""What TTI does to a request does not depend on its neighbours: real engines, both of vLLM's runners, on a CPU.

Owns: the requests, the engine configurations, and the comparison of each with the same requests one at a time. The
engines run in `tests.integration.invariance_process`, one process for each runner.

Tokens, and what fired where, must be the same to the letter: no token of any request may differ. M, range and Φ agree
to `TOLERANCE`: another batch means another order of summation in the matrix products, so logits differ by some 1e-6,
and M by that over the width of the range that it is normalised by (seldom below 0.1).

The policy is random and not taught the reply format: taught, every thought is the same plateau of uncertainty. Most
prompts count as ending with the opening marker, a bias makes the other requests write the markers themselves.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from tests.integration import random_policy
from tests.unit import uncertainty_oracle as oracle

pytestmark = pytest.mark.timeout(600)

Answers = dict[str, dict[str, Any]]

TOLERANCE = 1e-4
PROCESS_TIMEOUT_S = 400.0
# Triton's interpreter is slow, 50 ms a row and token: fewer requests for V2, shorter replies.
NUMBERS = {"v1": list(range(24)), "v2": [0, 1, 2, 4, 5, 7, 11]}
MAX_TOKENS = {"v1": 32, "v2": 16}
OPEN, CLOSE = 258, 259
STOPS = list(range(0, random_policy.VOCABULARY, 40))  # replies end at any length, as they do in a batch of real ones
BIAS = {OPEN: 5.0, CLOSE: 4.0}
SHARED_PROMPT = np.random.default_rng(1000).integers(440, random_policy.VOCABULARY, size=64).tolist()
SETTINGS: list[dict[str, Any]] = [
    {"epsilon": 0.12, "window": 2, "min_tokens": 8, "think_cap": 60, "starts_inside": True},
    {"epsilon": 0.0, "think_cap": 6, "top_j": 5, "starts_inside": True},
    {"epsilon": 0.15, "window": 3, "min_tokens": 5, "think_cap": 30, "alpha": 0.8, "starts_inside": True},
    {"epsilon": 0.2, "window": 1, "min_tokens": 3, "think_cap": 10},
    {"epsilon": 0.1, "window": 4, "min_tokens": 4, "top_j": 12, "signal": "confidence", "starts_inside": True},
    {"epsilon": 0.5, "think_cap": 3, "tti": "off", "starts_inside": True},
]
CARRIED = [0.5, 5.0, 3.0, 9.0]
PLAIN = {"max_model_len": 160, "max_num_seqs": 32, "enable_prefix_caching": False}
# Nine blocks of 32 tokens, and one that vLLM keeps for itself; the longest requests need five.
TIGHT = PLAIN | {"max_num_seqs": 8, "num_gpu_blocks_override": 10}


def prompt_of(number: int) -> list[int]:
    own = np.random.default_rng(number).integers(440, random_policy.VOCABULARY, size=20 + 5 * number % 37).tolist()
    return SHARED_PROMPT + own if number % 5 in (0, 2) else own


def settings_of(number: int) -> dict[str, Any]:
    return SETTINGS[number % len(SETTINGS)] | ({"range": CARRIED} if number % 4 < 2 else {})


def request_of(number: int, runner: str, temperature: float = 1.0) -> dict[str, Any]:
    """Request `number`, always the same one."""
    tti = settings_of(number)
    return {
        "id": f"r{number}",
        "prompt": prompt_of(number),
        "params": {
            "max_tokens": MAX_TOKENS[runner],
            "seed": number,
            "temperature": temperature,
            "stop_token_ids": STOPS,
            "logit_bias": {} if "starts_inside" in tti else BIAS,
        },
        "tti": tti,
    }


def company(runner: str) -> list[dict[str, Any]]:
    """Other requests; half of them take no part in TTI. Triton's interpreter cannot run vLLM's top-k."""
    others = []
    for number in range(24 if runner == "v1" else 4):
        other = request_of(100 + number, runner, temperature=0.5 * (number % 4))
        other["params"]["top_k"] = 10 * (number % 3) if runner == "v1" else 0
        others.append(other | ({"tti": None} if number % 2 else {}))
    return others


def jobs_for(runner: str) -> list[dict[str, Any]]:
    sampled = [request_of(number, runner) for number in NUMBERS[runner]]
    # A CPU generator cannot be rewound, which the V1 runner does for a cut prompt with a seed ("CPU Generator does not
    # use offset"): there the prompts that are cut are those of greedy requests.
    uncut = [request_of(number, runner, temperature=0.0) for number in NUMBERS["v1"][:12]] if runner == "v1" else []
    cut = uncut or sampled

    def part(name: str, requests: list[Any], arrivals: int, **how: Any) -> dict[str, Any]:
        return {"name": name, "requests": requests, "arrivals": arrivals} | how

    alone = [part("alone", sampled, 0), part("greedy alone", uncut, 0)]
    beside = [request for pair in zip_longest(company(runner), reversed(sampled)) for request in pair if request]
    together = [part("together", sampled, len(sampled)), part("beside others", beside, 3)]
    twice = [part("prompts unknown", sampled, 4), part("prompts known", sampled, 4, forget_prompts=False)]
    jobs: list[dict[str, Any]] = [
        {"name": "alone", "arguments": PLAIN | {"max_num_seqs": 1}, "rounds": alone},
        {"name": "together", "arguments": PLAIN, "rounds": together},
        {"name": "prefix cache", "arguments": PLAIN | {"enable_prefix_caching": True}, "rounds": twice},
        {"name": "preemption", "arguments": TIGHT, "rounds": [part("preemption", sampled, len(sampled))]},
        {
            "name": "cut prompts",
            "arguments": PLAIN | {"max_num_seqs": 16, "enable_chunked_prefill": True, "max_num_batched_tokens": 48},
            "rounds": [part("cut prompts", cut, len(cut))],
        },
        {
            "name": "async",
            "arguments": TIGHT | {"async_scheduling": True},
            "undo_async_refusal": True,
            "rounds": [part("async", sampled, 3)],
        },
    ]
    return [job for job in jobs if runner == "v1" or job["name"] != "prefix cache"]


class Outcome:
    """All that the engines of one runner answered: `rounds` by name, `facts` by the engine's name."""

    def __init__(self, runner: str, folder: str, job_file: Path) -> None:
        self.runner = runner
        self.rounds: dict[str, Answers] = {}
        self.facts: dict[str, dict[str, Any]] = {}
        jobs = jobs_for(runner)
        job_file.write_text(json.dumps({"runner": runner, "folder": folder, "engines": jobs}))
        errors = job_file.with_suffix(".err")
        command = [sys.executable, "-m", "tests.integration.invariance_process", str(job_file)]
        with errors.open("w") as stderr:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True,
                cwd=Path(__file__).parents[2],
            )  # fmt: skip
            try:
                lines = process.communicate(timeout=PROCESS_TIMEOUT_S)[0].splitlines()
            except subprocess.TimeoutExpired as expired:
                lines = (expired.stdout or b"").decode().splitlines()
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        for engine in map(json.loads, lines):
            self.rounds |= engine["rounds"]
            self.facts[engine["name"]] = engine["facts"]
        if process.returncode:
            waited_for = next((job["name"] for job in jobs if job["name"] not in self.facts), "the end of the process")
            pytest.fail(
                f"{runner}: status {process.returncode} within {PROCESS_TIMEOUT_S} s, waiting for {waited_for!r}; "
                f"its last words: {errors.read_text()[-3000:]}"
            )

    def assert_same_as_alone(self, name: str, alone: str = "alone") -> None:
        """The round `name` is, request by request, what the round `alone` is."""
        got, expected = self.rounds[name], self.rounds[alone]
        assert expected and expected.keys() <= got.keys()
        worst = 0.0
        for request, one in expected.items():
            other, where = got[request], f"{self.runner}, {name}, {request}"
            for key in ("tokens", "problem", "fired", "fired_at", "num_forced", "think_at", "num_think_tokens"):
                assert other[key] == one[key], f"{where}: {key} is {other[key]}, alone it is {one[key]}"
            assert one["problem"] == ""
            mine, theirs = history(other), history(one)
            np.testing.assert_allclose(mine, theirs, atol=TOLERANCE, rtol=0, err_msg=where)
            np.testing.assert_allclose(other["range"], one["range"], atol=TOLERANCE, rtol=0, err_msg=where)
            np.testing.assert_allclose(other["phi"], one["phi"], atol=TOLERANCE, rtol=0, err_msg=where)
            worst = max(worst, float(np.nanmax(np.abs(mine - theirs))))
        print(f"{self.runner}, {name}: {len(expected)} requests, largest difference {worst:.1e}")


def history(answer: dict[str, Any]) -> np.ndarray:
    """Entropy, confidence and M of each token [T, 3]."""
    return np.frombuffer(bytes.fromhex(answer["history"]), np.float32).reshape(-1, 3)


@pytest.fixture(scope="module")
def policy(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, PreTrainedTokenizerFast, Qwen3ForCausalLM]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # with more threads than free cores they wait for each other
    tokenizer = random_policy.build_tokenizer()
    model = random_policy.build_model(tokenizer, seed=0)
    yield random_policy.save(model, tokenizer, tmp_path_factory.mktemp("policy")), tokenizer, model
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=list(NUMBERS))
def outcome(request: pytest.FixtureRequest, policy: Any, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return Outcome(request.param, policy[0], tmp_path_factory.mktemp(request.param) / "job.json")


def test_the_requests_end_by_uncertainty_by_the_cap_and_by_themselves(outcome: Outcome) -> None:
    runner_module = {"v1": "vllm.v1.worker.gpu_model_runner", "v2": "vllm.v1.worker.gpu.model_runner"}
    assert {facts["runner"] for facts in outcome.facts.values()} == {runner_module[outcome.runner]}
    assert outcome.facts["alone"]["most_rows"] == 1
    fired = Counter(answer["fired"] for answer in outcome.rounds["alone"].values())
    least = 3 if outcome.runner == "v1" else 2
    assert fired["uncertainty"] >= least and fired["cap"] >= least and fired[""] >= least, fired
    assert any(len(answer["tokens"]) < MAX_TOKENS[outcome.runner] for answer in outcome.rounds["alone"].values())
    wrote_marker = any(answer["think_at"] > 0 for answer in outcome.rounds["alone"].values())
    assert wrote_marker or outcome.runner == "v2", "no reply opens its thought itself"
    for facts in outcome.facts.values():
        assert facts["kept"]["requests"] == facts["kept"]["rows"] == 0


def test_a_full_batch_changes_nothing(outcome: Outcome) -> None:
    assert outcome.facts["together"]["most_rows"] >= len(NUMBERS[outcome.runner])
    outcome.assert_same_as_alone("together")


def test_another_order_and_other_requests_beside_change_nothing(outcome: Outcome) -> None:
    assert len(outcome.rounds["beside others"]) > len(NUMBERS[outcome.runner])
    outcome.assert_same_as_alone("beside others")


def test_a_prompt_that_is_known_already_changes_nothing(outcome: Outcome) -> None:
    if outcome.runner == "v2":
        pytest.skip("one engine less: what a known prompt leaves out, a prompt in pieces leaves out, too")
    outcome.assert_same_as_alone("prompts unknown")
    long = [f"r{number}" for number in NUMBERS[outcome.runner] if len(prompt_of(number)) > len(SHARED_PROMPT)]
    assert long and all(outcome.rounds["prompts known"][name]["cached"] >= 64 for name in long)
    outcome.assert_same_as_alone("prompts known")


def test_preemption_changes_nothing(outcome: Outcome) -> None:
    answers = outcome.rounds["preemption"]
    preempted = outcome.facts["preemption"]["preempted"]
    print(outcome.runner, "preempted at", preempted)
    amid_thought = [name for name, length in preempted if 0 < length < answers[name]["fired_at"]]
    assert len(preempted) >= 2 and amid_thought, preempted
    outcome.assert_same_as_alone("preemption")


def test_a_prompt_in_pieces_changes_nothing(outcome: Outcome) -> None:
    assert outcome.facts["cut prompts"]["cut_prompts"] >= len(NUMBERS[outcome.runner]) // 3
    outcome.assert_same_as_alone("cut prompts", "greedy alone" if outcome.runner == "v1" else "alone")


def test_async_scheduling_with_preemption_changes_nothing(outcome: Outcome) -> None:
    """vLLM switches async scheduling off on a CPU, whatever is asked: the process undoes that."""
    facts = outcome.facts["async"]
    assert facts["scheduler"] == "AsyncScheduler" and outcome.facts["preemption"]["scheduler"] == "Scheduler"
    assert facts["preempted"]
    outcome.assert_same_as_alone("async")


def test_m_and_firing_agree_with_the_oracle_on_the_models_own_logits(outcome: Outcome, policy: Any) -> None:
    """What the engine measured, recomputed in float64 from the Hugging Face model's logits of the same reply."""
    _, tokenizer, model = policy
    pieces = tokenizer.convert_ids_to_tokens(list(range(random_policy.VOCABULARY)))
    queue = tokenizer.encode("</think>\n<action>", add_special_tokens=False)
    compared: Counter[str] = Counter()
    for number in NUMBERS[outcome.runner]:
        answer, settings = outcome.rounds["together"][f"r{number}"], settings_of(number)
        prompt, reply = prompt_of(number), answer["tokens"]
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 :].double().numpy()
        inside = settings.pop("starts_inside", False)
        if inside:  # the oracle reads the marker: as a first token, of which nothing is measured
            logits, reply = np.concatenate((np.full_like(logits[:1], np.nan), logits)), [OPEN, *reply]
        else:
            logits[:, list(BIAS)] += list(BIAS.values())
        before = settings.pop("range", (math.inf, -math.inf, math.inf, -math.inf))
        expected = oracle.reply(
            lambda at, rows=logits: rows[at],
            lambda at, _, tokens=reply: tokens[at],
            pieces,
            queue,
            max_tokens=MAX_TOKENS[outcome.runner] + inside,
            eos=reply[-1] if len(answer["tokens"]) < MAX_TOKENS[outcome.runner] else -1,
            before=before,
            **settings,
        )
        if expected.smallest_margin < 5e-5 or expected.smallest_span < 1e-2:
            continue
        compared[answer["fired"]] += 1
        fired_at = answer["fired_at"] + inside if answer["fired"] else -1
        assert (expected.fired, expected.fired_at) == (answer["fired"], fired_at), number
        assert expected.tokens == reply
        np.testing.assert_allclose(history(answer)[:, 2], expected.m[inside:], atol=1e-3, err_msg=f"r{number}")
        np.testing.assert_allclose(answer["phi"], expected.phi, rtol=1e-2)
        np.testing.assert_allclose(answer["range"], expected.signal_range, atol=1e-4)
    assert compared["uncertainty"] >= 2 and compared["cap"] and compared[""], compared
