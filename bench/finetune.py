"""Cold-start throughput by number of ranks and threads, in one run, as JSON lines.

    python -m bench.finetune [--layouts 1x1 1x2 2x1] [--seconds 30] [--repeats 2] [--sequences 20000]

A layout is RANKSxTHREADS. The layouts are measured in turn, `repeats` times each; shown are the tokens (prompt and
reply) per second of all ranks together, start-up left out, and the best of each layout as a ratio to the first.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from learner.finetune import FinetuneProgress
from learner.finetune_ranks import finetune_in_processes
from learner.settings import ColdstartSettings
from tests.tiny_model import random_pairs, tiny_tokenizer

WARM_STEPS = 5


def measure(model: Path, out: Path, pairs: list, ranks: int, threads: int, seconds: float) -> float:
    """Tokens a second between the first warm step and the last."""
    seen: list[tuple[float, int]] = []

    def note(progress: FinetuneProgress) -> None:
        seen.append((time.monotonic(), progress.tokens))

    settings = ColdstartSettings(
        num_ranks=ranks, num_threads=threads, max_duration_s=seconds, batch_tokens=2048, epochs=1000
    )
    finetune_in_processes(model, out, pairs, settings, 0, prompt_loss_weight=0.2, on_progress=note)
    (start_s, start), (end_s, end) = seen[WARM_STEPS], seen[-1]
    return (end - start) / (end_s - start_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--layouts", nargs="+", default=["1x1", "1x2", "2x1"])
    parser.add_argument("--seconds", type=float, default=30.0, help="training time of a measurement")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--sequences", type=int, default=20000)
    args = parser.parse_args()
    from learner.export import write_model_folder
    from learner.tiny_policy import build_model

    pairs = random_pairs(args.sequences, prompt=(25, 70), reply=(12, 40))
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "model")
        tokenizer = tiny_tokenizer()
        write_model_folder(model, build_model(tokenizer, 0), tokenizer)
        best = dict.fromkeys(args.layouts, 0.0)
        for _ in range(args.repeats):
            for layout in args.layouts:
                ranks, threads = map(int, layout.split("x"))
                rate = measure(model, Path(folder, "out"), pairs, ranks, threads, args.seconds)
                best[layout] = max(best[layout], rate)
                print(json.dumps({"layout": layout, "tokens_per_s": round(rate)}), flush=True)
        first = best[args.layouts[0]]
        print(json.dumps({layout: round(rate / first, 2) for layout, rate in best.items()}))


if __name__ == "__main__":
    main()
