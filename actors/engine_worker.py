"""What our own engine's worker can do besides vLLM's: hand statistics out, and take weights.

Owns: `EngineWorker`. vLLM mixes it into its worker (`worker_extension_cls`); `actors.inference` calls it by
`collective_rpc`. Must not know: how statistics are measured or weights are loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import actors.weight_transfer  # noqa: F401  registers the weight transfer engine in the worker process
from actors.tti_plugin import TTI
from actors.tti_processor import TTIProcessorV1
from actors.tti_processor_v2 import TTIProcessorV2


class EngineWorker:
    """Methods of vLLM's worker."""

    model_runner: Any

    def t2po_take(
        self, finished: Sequence[tuple[str, Sequence[int]]], dropped: Sequence[str]
    ) -> list[dict[str, Any] | None]:
        """Statistics of finished requests (id, tokens of the reply), in order; frees them and the dropped ones."""
        return self._tti().take([(name, tokens) for name, tokens in finished], dropped)

    def t2po_kept(self) -> dict[str, int]:
        return self._tti().kept()

    def _tti(self) -> TTIProcessorV1 | TTIProcessorV2:
        runner = self.model_runner
        loaded = runner.input_batch.logitsprocs.all if hasattr(runner, "input_batch") else ()
        if not loaded:
            loaded = runner.sampler.logits_processors
        for processor in loaded:
            if isinstance(processor, TTI):
                return processor.processor
        raise RuntimeError("this vLLM worker runs no TTI; pass it in logits_processors")
