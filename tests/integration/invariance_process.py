"""The process of `test_tti_invariance`: engines of one vLLM runner, one after the other, each in a process of its own.

    python -m tests.integration.invariance_process JOB.json

Owns: starting an engine as a job asks, feeding it requests as a round asks, what the engine did on the way. Prints one
JSON line for each engine. vLLM is imported once, each engine is a fork of that. Must not know: what is expected.

Model Runner V2 wants a GPU and Triton: here Triton's interpreter runs its kernels, on a CPU.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ |= {
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def choose_runner(runner: str) -> None:
    """Before vLLM is imported."""
    os.environ["VLLM_USE_V2_MODEL_RUNNER"] = str(int(runner == "v2"))
    if runner == "v2":
        os.environ |= {"TRITON_INTERPRET": "1", "TORCHDYNAMO_DISABLE": "1"}
        import triton.backends

        class Driver:
            @staticmethod
            def is_active() -> bool:
                return True

        class Backend:
            compiler, driver = None, Driver

        triton.backends.backends["cpu"] = Backend  # vLLM takes Triton for missing where no driver is active


def allow_async_scheduling() -> None:
    """vLLM switches async scheduling off on a CPU. Undone here; streams and events, which order nothing, are empty."""
    import torch
    from vllm.platforms.cpu import CpuPlatform

    switch_off = CpuPlatform.check_and_update_config

    def leave_on(vllm_config: Any) -> None:
        switch_off(vllm_config)
        vllm_config.scheduler_config.async_scheduling = True

    class Event:
        def __init__(self, *_: Any, **__: Any) -> None: ...
        def record(self, *_: Any) -> None: ...
        def synchronize(self) -> None: ...

    CpuPlatform.check_and_update_config = staticmethod(leave_on)
    torch.cuda.Event, torch.cuda.current_stream = Event, lambda *_: None
    torch.cuda.stream = contextlib.nullcontext


class Engine:
    """One vLLM engine with TTI, and what its scheduler did."""

    def __init__(self, folder: str, arguments: dict[str, Any]) -> None:
        from vllm import LLM

        self.llm = LLM(
            folder, dtype="float32", enforce_eager=True, generation_config="vllm", seed=0, block_size=32,
            logits_processors=["actors.tti_plugin:TTI"], worker_extension_cls="actors.engine_worker.EngineWorker",
            **{"kv_cache_memory_bytes": 2**27, "enable_chunked_prefill": False, "max_num_batched_tokens": 4096}
            | arguments,
        )  # fmt: skip
        self.engine = self.llm.llm_engine
        self.scheduler = self.engine.engine_core.engine_core.scheduler
        self.preempted: list[tuple[str, int]] = []  # request, tokens of its reply
        self.cut_prompts = self.most_rows = 0
        preempt, schedule = self.scheduler._preempt_request, self.scheduler.schedule

        def noted_preempt(request: Any, *args: Any, **kwargs: Any) -> None:
            name = (request.sampling_params.extra_args or {}).get("t2po_id", "")
            self.preempted.append((name, request.num_output_tokens))
            preempt(request, *args, **kwargs)

        def noted_schedule(*args: Any, **kwargs: Any) -> Any:
            step = schedule(*args, **kwargs)
            requests = [self.scheduler.requests[name] for name in step.num_scheduled_tokens]
            self.most_rows = max(self.most_rows, len(requests))
            self.cut_prompts += sum(request.is_prefill_chunk for request in requests)
            return step

        self.scheduler._preempt_request, self.scheduler.schedule = noted_preempt, noted_schedule

    def round(self, requests: list[dict[str, Any]], arrivals: int) -> dict[str, Any]:
        """Answers `requests`, of which `arrivals` come at each step; 0: each comes when the one before has its answer.

        Statistics are taken as soon as a reply has ended, as the server does. Those that ask nothing of TTI (`tti`
        null) are company for the others: what is answered to them is not told.
        """
        from vllm import SamplingParams

        from actors.tti_request import Request

        waiting, answers = list(requests), {}
        while waiting or self.engine.has_unfinished_requests():
            idle = not self.engine.has_unfinished_requests()
            for request in [waiting.pop(0) for _ in range(min(arrivals or int(idle), len(waiting)))]:
                asks = request["tti"] is not None
                extra = Request(id=request["id"], **request["tti"]).extra_args() if asks else None
                given = request["params"]
                bias = {int(token): value for token, value in given.get("logit_bias", {}).items()}  # JSON made it text
                params = SamplingParams(**given | {"logit_bias": bias or None}, extra_args=extra, detokenize=False)
                self.engine.add_request(request["id"], {"prompt_token_ids": request["prompt"]}, params)
            for output in self.engine.step():
                if output.finished:
                    tokens = list(output.outputs[0].token_ids)
                    taken = self.engine.collective_rpc("t2po_take", args=([(output.request_id, tokens)], []))[0][0]
                    if taken is None:
                        continue
                    taken["history"] = taken["history"].hex()
                    answers[output.request_id] = taken | {"tokens": tokens, "cached": output.num_cached_tokens or 0}
        return answers

    def facts(self) -> dict[str, Any]:
        runner = self.engine.collective_rpc(lambda worker: type(worker.model_runner).__mro__[1].__module__)[0]
        return {
            "runner": runner,
            "scheduler": type(self.scheduler).__name__,
            "preempted": self.preempted,
            "cut_prompts": self.cut_prompts,
            "most_rows": self.most_rows,
            "kept": self.engine.collective_rpc("t2po_kept")[0],
        }


def run(folder: str, job: dict[str, Any]) -> dict[str, Any]:
    arguments = dict(job["arguments"])
    if job.get("undo_async_refusal"):
        allow_async_scheduling()
    begin = time.monotonic()
    engine = Engine(folder, arguments)
    rounds, seconds = {}, [time.monotonic() - begin]  # of the start and of each round
    for part in job["rounds"]:
        if part.get("forget_prompts", True):
            assert engine.llm.reset_prefix_cache()
        rounds[part["name"]] = engine.round(part["requests"], part["arrivals"])
        seconds.append(time.monotonic() - begin - sum(seconds))
    return {"name": job["name"], "rounds": rounds, "facts": engine.facts() | {"seconds": seconds}}


@contextlib.contextmanager
def results_alone_on_stdout() -> Iterator[Any]:
    """vLLM and its libraries write there too: what they write goes to stderr."""
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    yield results
    results.close()


def main() -> None:
    jobs = json.loads(Path(sys.argv[1]).read_text())
    choose_runner(jobs["runner"])
    with results_alone_on_stdout() as results:
        import vllm.v1.engine.llm_engine  # noqa: F401

        for job in jobs["engines"]:
            child = os.fork()
            if child == 0:
                print(json.dumps(run(jobs["folder"], job)), file=results, flush=True)
                sys.stderr.flush()
                os._exit(0)
            _, status = os.waitpid(child, 0)
            if status:
                sys.exit(f"the engine {job['name']!r} ended with status {status}")


if __name__ == "__main__":
    main()
