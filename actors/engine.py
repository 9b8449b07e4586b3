"""Birth and death of a vLLM engine: its environment, its arguments, its processes.

Owns: every setting that vLLM is started with, and ending what it started. Called by `actors.inference`. Must not know:
requests, weights after the first ones, Ray.

vLLM is imported inside the functions, after the environment variables that it reads while being imported are set.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from actors.settings import InferenceSettings, TTISettings
from actors.think_markers import DEFAULT_QUEUE, THINK_CLOSE, build_automaton, check_cap_acts, queue_tokens, token_pieces

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

STOP_TIMEOUT_S = 10.0
GRACE_S = 2.0  # an engine tears itself down in well under a second; its process then takes 5 s to exit by itself


class EngineError(RuntimeError):
    """A model folder or setting that no engine can start with."""


class InferenceError(RuntimeError):
    """A server that cannot do what it was asked; the message names the server's state, the value and the remedy."""


def prepare_environment(settings: InferenceSettings) -> None:
    """What vLLM reads from the environment; a value that the operator has set stays."""
    defaults = {
        # With more threads than free cores OpenMP threads wait for each other: 20 times slower, measured.
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        # One process for the engine core and its worker: half the memory and start-up, and no messages between them.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_ENGINE_READY_TIMEOUT_S": str(int(settings.start_timeout_s) + 1),
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def check_model_folder(model_path: str, settings: InferenceSettings) -> None:
    """Says in our own words, before an engine is started, what a model folder lacks."""
    folder = Path(model_path)
    if not folder.is_dir():
        raise EngineError(f"model folder {model_path!r} does not exist; check model.path")
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise EngineError(f"{config_file} does not exist; {model_path!r} is no model folder")
    positions = json.loads(config_file.read_text()).get("max_position_embeddings", math.inf)
    needed = settings.prompt_tokens + settings.response_tokens
    if needed > positions:
        raise EngineError(
            f"the model in {model_path} has {positions} positions, fewer than "
            f"inference.prompt_tokens + inference.response_tokens = {needed}; lower one of them"
        )


def engine_arguments(model_path: str, settings: InferenceSettings, seed: int, *, on_cpu: bool) -> dict[str, Any]:
    """vLLM's engine arguments, by vLLM's names, but the way that weights come in."""
    max_model_len = settings.prompt_tokens + settings.response_tokens
    by_device: dict[str, Any] = {"gpu_memory_utilization": settings.gpu_memory_utilization}
    if on_cpu:
        by_device = {
            "kv_cache_memory_bytes": int(settings.kv_cache_gib * 2**30),
            # A prompt cut into chunks makes vLLM rewind the request's own generator, which a CPU generator
            # cannot do: the engine dies ("CPU Generator does not use offset"). So prompts are never cut.
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(4096, max_model_len, settings.max_num_seqs),
            "enforce_eager": True,
        }
    return {
        "model": model_path,
        "dtype": settings.dtype,
        "seed": seed,
        "max_model_len": max_model_len,
        "max_num_seqs": settings.max_num_seqs,
        "generation_config": "vllm",
        "disable_log_stats": not settings.metrics_port,
        "enable_prefix_caching": settings.prefix_caching,
        "logits_processors": ["actors.tti_plugin:TTI"],
        "worker_extension_cls": "actors.engine_worker.EngineWorker",
        **by_device,
    }


def make_engine(model_path: str, settings: InferenceSettings, tti: TTISettings, seed: int) -> tuple[AsyncLLM, Any]:
    """The engine and its tokenizer. Blocks for as long as the engine takes to start."""
    from vllm.config import WeightTransferConfig
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform
    from vllm.tokenizers import cached_tokenizer_from_config
    from vllm.v1.engine.async_llm import AsyncLLM

    on_cpu = current_platform.is_cpu()
    if on_cpu:
        from actors.weight_transfer import BACKEND as backend
    else:
        from actors.weight_channel import BACKEND as backend
    arguments = AsyncEngineArgs(
        **engine_arguments(model_path, settings, seed, on_cpu=on_cpu),
        weight_transfer_config=WeightTransferConfig(backend=backend),
    )
    config = arguments.create_model_config()
    tokenizer = cached_tokenizer_from_config(config)
    # A tokenizer that cannot write the markers, or not in so few tokens, is found here, not by the first request.
    pieces = token_pieces(tokenizer, config.get_vocab_size())
    queue_tokens(tokenizer, DEFAULT_QUEUE, build_automaton(pieces))
    check_cap_acts(tokenizer, tti, settings.response_tokens, THINK_CLOSE)  # the shortest queue there can be
    return AsyncLLM.from_engine_args(arguments), tokenizer


def child_processes() -> list[psutil.Process]:
    """Processes below this one, but Python's own resource tracker, which serves the whole process and ends with it."""
    children = []
    for process in psutil.Process().children(recursive=True):
        try:
            if not any("resource_tracker" in part for part in process.cmdline()):
                children.append(process)
        except psutil.NoSuchProcess:
            continue
    return children


def end_processes(processes: list[psutil.Process]) -> None:
    """Ends processes that this server started and that outlived the engine's own shutdown."""
    _, alive = psutil.wait_procs(processes, timeout=GRACE_S)
    for process in alive:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, timeout=STOP_TIMEOUT_S / 2)
