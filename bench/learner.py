"""Learner throughput: ways of packing, number formats, and the learner against a bare loop, in one run.

    python bench/learner.py [--model FOLDER] [--threads 1] [--dtype float32] [--sequences 256] [--repeats 5] [--trl]

Owns: nothing that is imported. Every row is measured `repeats` times after one round that is not counted, the rows in
turn, forwards and backwards. Shown are the quartiles of tokens (prompt and reply, no padding) per second of wall clock
and per second of processor time and thread, which a busy machine disturbs less, and the quartiles of the ratio, round
by round, to the bare loop with our packing (forward, backward, clip, AdamW; nothing else). `--trl` adds TRL's
GRPOTrainer's update on the same tokens, if trl can be imported (`bench/learner_trl.py`).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

VOCAB = 768
BARE = "loop: bare torch, our packing"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", help="Hugging Face folder; without it a random 1.9M-parameter Qwen3 is made")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--sequences", type=int, default=256)
    parser.add_argument("--prompt", type=int, nargs=2, default=(60, 180), help="shortest and longest prompt, tokens")
    parser.add_argument("--reply", type=int, nargs=2, default=(16, 48), help="shortest and longest reply, tokens")
    parser.add_argument("--micro-batch-tokens", type=int, nargs="+", default=[2048])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--trl", action="store_true", help="measure TRL's GRPOTrainer too")
    parser.add_argument("--only", default="", help="measure the rows whose name contains this")
    parser.add_argument(
        "--plain-layers", action="store_true", help="leave transformers' own norms and rotary embeddings"
    )
    return parser.parse_args()


ARGS = parse() if __name__ == "__main__" else None
if ARGS is not None:
    os.environ["OMP_NUM_THREADS"] = str(ARGS.threads)
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM  # noqa: E402

from envs.records import Candidate, SignalRange, Task, Trajectory, TrajectoryGroup, Turn  # noqa: E402
from learner import scoring  # noqa: E402
from learner.engine import DTYPES, guarded_step, start_engine  # noqa: E402
from learner.learner import Learner  # noqa: E402
from learner.packing import pack  # noqa: E402
from learner.scoring import TokenScorer, load_policy  # noqa: E402
from learner.settings import Algorithm, LearnerSettings  # noqa: E402
from tests.tiny_model import tiny_tokenizer  # noqa: E402

Pairs = list[tuple[np.ndarray, np.ndarray]]


def make_model(folder: Path) -> Path:
    torch.manual_seed(0)
    config = Qwen3Config(
        hidden_size=192, num_hidden_layers=4, num_attention_heads=6, num_key_value_heads=6, head_dim=32,
        intermediate_size=512, vocab_size=VOCAB, tie_word_embeddings=True, max_position_embeddings=1024,
        bos_token_id=None, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def make_pairs(count: int, prompt: tuple[int, int], reply: tuple[int, int]) -> Pairs:
    rng = np.random.default_rng(0)
    return [
        tuple(
            rng.integers(1, VOCAB, size=rng.integers(low, high + 1)).astype(np.int32) for low, high in (prompt, reply)
        )
        for _ in range(count)
    ]  # type: ignore[misc]


def make_groups(pairs: Pairs, siblings: int = 8) -> list[TrajectoryGroup]:
    """The pairs as one-turn trajectories; every second one wins, so that all of them are trained on."""
    groups = []
    for index in range(len(pairs) // siblings):
        task = Task(env="bench", panel="bench", index=index, id=str(index), kind="bench")
        trajectories = tuple(
            Trajectory(
                id=f"{index}/{sibling}", group_id=str(index), task=task, sibling=sibling, attempt=0,
                turns=(_turn(*pairs[index * siblings + sibling], won=sibling % 2 == 0),),
                won=sibling % 2 == 0, duration_s=1.0,
            )
            for sibling in range(siblings)
        )  # fmt: skip
        groups.append(TrajectoryGroup(id=str(index), index=index, task=task, trajectories=trajectories))
    return groups


def _turn(prompt: np.ndarray, reply: np.ndarray, won: bool) -> Turn:
    flat = np.full(len(reply), 0.5, dtype=np.float32)
    candidate = Candidate(
        token_ids=reply, logprobs=np.full(len(reply), -6.6, dtype=np.float32), forced=np.zeros(len(reply), dtype=bool),
        entropy=flat, uncertainty=flat, text="", phi=0.5, gamma=0.1, kept=True, fired="", fired_at=-1,
        num_think_tokens=1, finish_reason="stop", seed=0, min_version=0, max_version=0, range_after=SignalRange(),
    )  # fmt: skip
    return Turn(
        prompt_ids=prompt, accepted=candidate, rejected=(), observation="o", action="a", format_valid=True, valid=True,
        reward=10.0 if won else 0.0, done=True, next_observation="",
    )  # fmt: skip


class Row:
    """One way to process all pairs once; keeps its speed in every round."""

    def __init__(self, name: str, run: Callable[[], None]) -> None:
        self.name, self._run = name, run
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def measure(self, tokens: int, threads: int) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        self._run()
        self.wall.append(tokens / (time.perf_counter() - wall))
        self.cpu.append(tokens * threads / (time.process_time() - cpu))


def quartiles(values: list[float], digits: int = 0) -> str:
    """Lower quartile, median, upper quartile of what was counted."""
    return " ".join(f"{value:8.{digits}f}" for value in np.percentile(values[1:], [25, 50, 75]))


def packing_rows(path: Path, dtype: torch.dtype, pairs: Pairs, budget: int) -> list[Row]:
    """Forward + backward of the scoring module under different ways of packing; no optimizer."""
    scorer = TokenScorer(load_policy(path, dtype))

    def ours(model: TokenScorer = scorer) -> None:
        for batch in pack(pairs, budget):
            scores, _ = model(batch.input_ids, batch.positions, batch.targets)
            scores.sum().backward()
        model.zero_grad()

    def with_mask() -> None:
        for batch in pack(pairs, budget):
            mask = torch.zeros_like(batch.input_ids)
            for row, member in enumerate(batch.members):
                mask[row, : sum(map(len, pairs[member])) - 1] = 1
            hidden = scorer.policy.model(
                input_ids=batch.input_ids, attention_mask=mask, use_cache=False
            ).last_hidden_state
            logits = scorer.policy.lm_head(hidden.flatten(0, 1)[batch.positions]).float()
            torch.log_softmax(logits, -1).gather(1, batch.targets[:, None]).sum().backward()
        scorer.zero_grad()

    def every_logit() -> None:
        for batch in pack(pairs, budget):
            logits = scorer.policy(input_ids=batch.input_ids, use_cache=False).logits.float()
            log_probs = torch.log_softmax(logits, -1).flatten(0, 1)[batch.positions]
            log_probs.gather(1, batch.targets[:, None]).sum().backward()
        scorer.zero_grad()

    def concatenated() -> None:
        for batch in pack(pairs, budget):
            lengths = [sum(map(len, pairs[member])) - 1 for member in batch.members]
            width, total = batch.input_ids.shape[1], sum(lengths)
            keep = torch.cat([torch.arange(n) + row * width for row, n in enumerate(lengths)])
            ids = batch.input_ids.flatten()[keep][None]
            positions = torch.cat([torch.arange(n) for n in lengths])[None]
            owner = torch.cat([torch.full((n,), row) for row, n in enumerate(lengths)])
            mask = (owner[:, None] == owner[None, :]).tril()[None, None]
            place = torch.zeros(batch.input_ids.numel(), dtype=torch.long)
            place[keep] = torch.arange(total)
            hidden = scorer.policy.model(
                input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False
            ).last_hidden_state
            logits = scorer.policy.lm_head(hidden[0][place[batch.positions]]).float()
            torch.log_softmax(logits, -1).gather(1, batch.targets[:, None]).sum().backward()
        scorer.zero_grad()

    def one_by_one() -> None:
        for batch in pack(pairs, 1):
            scores, _ = scorer(batch.input_ids, batch.positions, batch.targets)
            scores.sum().backward()
        scorer.zero_grad()

    return [
        Row("packing: sorted, padded right, no mask (ours)", ours),
        Row("packing: sorted, padded right, mask", with_mask),
        Row("packing: sorted, padded right, all logits", every_logit),
        Row("packing: concatenated, block mask", concatenated),
        Row("packing: one sequence at a time", one_by_one),
    ]


def loop_rows(path: Path, dtype: str, threads: int, pairs: Pairs, budget: int) -> list[Row]:
    """A whole optimizer step over all pairs: bare torch, our engine, and the learner with everything."""
    bare = AutoModelForCausalLM.from_pretrained(path, dtype=DTYPES[dtype], attn_implementation="sdpa")
    optimizer = torch.optim.AdamW(bare.parameters(), lr=1e-6)

    def bare_loop() -> None:
        for batch in pack(pairs, budget):
            hidden = bare.model(input_ids=batch.input_ids, use_cache=False).last_hidden_state
            logits = bare.lm_head(hidden.flatten(0, 1)[batch.positions])
            torch.nn.functional.cross_entropy(logits, batch.targets, reduction="sum").backward()
        torch.nn.utils.clip_grad_norm_(bare.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    def naive_loop() -> None:
        for start in range(0, len(pairs), 16):
            part = [np.concatenate(pair).astype(np.int64) for pair in pairs[start : start + 16]]
            ids = torch.zeros(len(part), max(map(len, part)), dtype=torch.long)
            for row, tokens in enumerate(part):
                ids[row, : len(tokens)] = torch.from_numpy(tokens)
            bare(input_ids=ids, attention_mask=(ids > 0).long(), labels=ids, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(bare.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    engine = start_engine(
        TokenScorer(load_policy(path, DTYPES[dtype])), lr=1e-6, weight_decay=0.01, grad_clip=1.0, dtype=dtype
    )

    def engine_loop() -> None:
        for batch in pack(pairs, budget):
            scores, _ = engine(batch.input_ids, batch.positions, batch.targets)
            engine.backward(-scores.sum() / 1000.0, scale_wrt_gas=False)
        guarded_step(engine)

    settings = LearnerSettings(dtype=dtype, num_threads=threads, micro_batch_tokens=max(budget, 64), lr=1e-6)
    learner = Learner(str(path), settings, Algorithm(), 0)
    groups = make_groups(pairs)
    return [
        Row("loop: bare torch, arrival order, mask, all logits", naive_loop),
        Row(BARE, bare_loop),
        Row("loop: DeepSpeed engine (fine-tuning)", engine_loop),
        Row("loop: Learner.train_step", lambda: learner.train_step(groups, 0) and None),
    ]


def main() -> None:
    assert ARGS is not None
    torch.set_num_threads(ARGS.threads)
    if ARGS.plain_layers:
        scoring.use_cpu_layers = lambda policy: (0, False)
    pairs = make_pairs(ARGS.sequences // 8 * 8, tuple(ARGS.prompt), tuple(ARGS.reply))
    tokens = sum(len(prompt) + len(reply) for prompt, reply in pairs)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(ARGS.model) if ARGS.model else make_model(Path(scratch) / "model")
        for budget in ARGS.micro_batch_tokens:
            rows = packing_rows(path, DTYPES[ARGS.dtype], pairs, budget)
            rows += loop_rows(path, ARGS.dtype, ARGS.threads, pairs, budget)
            rows = [row for row in rows if ARGS.only in row.name]
            if ARGS.trl:
                from bench.learner_trl import grpo_update

                rows.append(Row("loop: TRL GRPOTrainer", grpo_update(path, ARGS.dtype, pairs, budget)))
            for number in range(ARGS.repeats + 1):
                for row in rows if number % 2 == 0 else rows[::-1]:
                    row.measure(tokens, ARGS.threads)
            batches = pack(pairs, budget)
            padding = 1 - sum(batch.num_tokens for batch in batches) / sum(batch.input_ids.numel() for batch in batches)
            print(
                f"\n{ARGS.dtype}, {ARGS.threads} thread(s), {len(pairs)} sequences, {tokens} tokens, "
                f"micro-batches of {budget} tokens, padding {padding:.1%}"
            )
            print(f"{'quartiles of':52s}{'tokens/s':>26s}   {'tokens/CPU s':>26s}   {'CPU, to the bare loop':>26s}")
            bare = next((row for row in rows if row.name == BARE), None)
            for row in rows:
                ratios = [own / base for own, base in zip(row.cpu, bare.cpu, strict=True)] if bare else []
                shown = quartiles(ratios, 3) if ratios and row.name.startswith("loop") else ""
                print(f"{row.name:52s}{quartiles(row.wall)}   {quartiles(row.cpu)}   {shown}", flush=True)


if __name__ == "__main__":
    main()
