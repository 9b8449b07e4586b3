"""What TTI costs: the engine's decoding step without it, with it, and with a processor that works row by row.

    python -m bench.tti_cost [--model tiny|smollm2] [--batch N] [--rounds N]

One vLLM engine inside this process on one thread. All three kinds of requests run in the same engine, in rounds whose
order rotates; a step counts when all rows decode. Reported: the process's own CPU time of the median step, and its
ratio to the bare step of the same round: the median over the rounds, with quartiles, since machines drift from round
to round. Weights are random: they do not change the cost.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ |= {
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_USE_V2_MODEL_RUNNER": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
}

if "tcmalloc" not in os.environ.get("LD_PRELOAD", ""):  # vLLM's engine processes run with its allocator
    found = importlib.util.find_spec("vllm")
    allocators = sorted(Path(found.submodule_search_locations[0], "libs").glob("libtcmalloc*.so*")) if found else []
    if allocators:
        os.environ["LD_PRELOAD"] = str(allocators[0])
        os.execv(sys.executable, [sys.executable, "-m", "bench.tti_cost", *sys.argv[1:]])

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from vllm import LLM, SamplingParams
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from actors.tti_request import Request

SHAPES: dict[str, Any] = {
    "tiny": Qwen3Config(
        vocab_size=1024, hidden_size=256, intermediate_size=768, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=64, max_position_embeddings=1024, tie_word_embeddings=True,
    ),
    "smollm2": LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=2048, tie_word_embeddings=True,
    ),
}  # fmt: skip
BATCH = {"tiny": 64, "smollm2": 32}


class RowByRow(AdapterLogitsProcessor):
    """For comparison: the same signal by Python code for each row and token, with two host synchronisations."""

    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(self, params: SamplingParams) -> Any:
        if not (params.extra_args or {}).get("row_by_row"):
            return None
        seen: list[float] = []
        deltas: list[float] = []

        def process(output_ids: list[int], logits: torch.Tensor) -> torch.Tensor:
            log_p = torch.log_softmax(logits.float(), -1)
            entropy = float(-(log_p.exp() * log_p).sum())
            confidence = float(-log_p.topk(20).values.mean())
            m = 0.4 * entropy / math.log(len(logits)) + 0.6 / (1 + confidence)
            if seen:
                deltas.append(abs(m - seen[-1]))
            seen.append(m)
            return logits if len(deltas) < 4 or sum(deltas[-4:]) >= 0 else logits * 0

        return process


def save_model(shape: str, folder: str) -> None:
    config = SHAPES[shape]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, "<|end|>", "<think>", "</think>", "<action>"]
    words += [f"unused{i}" for i in range(config.vocab_size - len(words))]
    core = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>")
    tokenizer.add_tokens(["<think>", "</think>", "<action>"])
    torch.manual_seed(0)
    config.eos_token_id, config.bos_token_id, config.pad_token_id = tokenizer.eos_token_id, None, None
    model = Qwen3ForCausalLM(config) if shape == "tiny" else LlamaForCausalLM(config)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def round_of(llm: LLM, kind: str, batch: int, tokens: int, number: int) -> list[float]:
    """One round of `batch` requests; CPU milliseconds of its steps in which every row decodes."""
    engine = llm.llm_engine
    for row in range(batch):
        name = f"{kind}-{number}-{row}"
        extra: dict[str, Any] = {}
        if kind == "ours":
            extra = Request(id=name, starts_inside=True, epsilon=0.0, think_cap=10_000).extra_args()
        elif kind == "row by row":
            extra = {"row_by_row": True}
        params = SamplingParams(
            max_tokens=tokens, ignore_eos=True, seed=row, logprobs=0, flat_logprobs=True, detokenize=False,
            extra_args=extra,
        )  # fmt: skip
        prompt = np.random.default_rng(row).integers(0, 250, size=32).tolist()
        engine.add_request(name, {"prompt_token_ids": prompt}, params)
    cpu = []
    while engine.has_unfinished_requests():
        before = time.process_time()
        engine.step()
        cpu.append((time.process_time() - before) * 1e3)
    if kind == "ours":
        names = [(f"{kind}-{number}-{row}", [0] * tokens) for row in range(batch)]
        assert None not in engine.collective_rpc("t2po_take", args=(names, []))[0]
    return cpu[2:-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(SHAPES), default="tiny")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=48)
    options = parser.parse_args()
    batch = options.batch or BATCH[options.model]
    kinds = ("bare", "ours", "row by row")
    with tempfile.TemporaryDirectory() as folder:
        save_model(options.model, folder)
        llm = LLM(
            folder, dtype="bfloat16", max_model_len=32 + options.tokens, max_num_seqs=batch, enforce_eager=True,
            kv_cache_memory_bytes=2**29, enable_chunked_prefill=False, max_num_batched_tokens=8192,
            logits_processors=["actors.tti_plugin:TTI", RowByRow], generation_config="vllm",
            worker_extension_cls="actors.engine_worker.EngineWorker", enable_prefix_caching=False,
        )  # fmt: skip
        rounds: list[dict[str, float]] = []
        for number in range(options.rounds + 1):
            turned = number % len(kinds)
            order = kinds[turned:] + kinds[:turned]
            rounds.append(
                {kind: statistics.median(round_of(llm, kind, batch, options.tokens, number)) for kind in order}
            )
    del rounds[0]  # it warms up
    print(f"{options.model}: batch {batch}, vocabulary {SHAPES[options.model].vocab_size}, bfloat16, one thread")
    for kind in kinds:
        low, middle, high = np.quantile([one[kind] / one["bare"] for one in rounds], (0.25, 0.5, 0.75))
        cpu = statistics.median(one[kind] for one in rounds)
        print(f"  {kind:10s} {cpu:8.3f} ms a step   {middle:5.3f} x bare [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    main()
