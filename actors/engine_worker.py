"""What our own engine's worker can do besides vLLM's: hand statistics out, and take weights.

Owns: `EngineWorker`. vLLM mixes it into its worker (`worker_extension_cls`); `actors.inference` and what it
is made of call it by `collective_rpc`. Must not know: how statistics are measured or weights are loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vllm.platforms import current_platform

import actors.weight_transfer  # registers the weight transfer engine in the worker process
from actors.parent_watch import end_with_parent
from actors.tti_plugin import TTI
from actors.tti_processor import TTIProcessorV1
from actors.tti_processor_v2 import TTIProcessorV2
from envs.weight_checksum import Checksums

if not current_platform.is_cpu():
    import actors.weight_channel  # noqa: F401  registers that of GPUs

end_with_parent()  # vLLM imports this module in the processes that it starts, and nobody else does


class EngineWorker:
    """Methods of vLLM's worker."""

    model_runner: Any
    weight_transfer_engine: Any
    device: Any

    def t2po_take(
        self, finished: Sequence[tuple[str, Sequence[int]]], dropped: Sequence[str]
    ) -> list[dict[str, Any] | None]:
        """Statistics of finished requests (id, tokens of the reply), in order; frees them and the dropped ones."""
        return self._tti().take([(name, tokens) for name, tokens in finished], dropped)

    def t2po_kept(self) -> dict[str, int]:
        return self._tti().kept()

    def t2po_arrived(self) -> Checksums | None:
        """Checksums of the weights that the last update brought, as they arrived; null when it was not verified."""
        arrived: Checksums | None = self.weight_transfer_engine.arrived
        return arrived

    def t2po_gpu(self) -> str:
        """The GPU that the model lies on, by its unique id; empty on a CPU."""
        import torch

        return str(torch.cuda.get_device_properties(self.device).uuid) if self.device.type == "cuda" else ""

    def _tti(self) -> TTIProcessorV1 | TTIProcessorV2:
        runner = self.model_runner
        loaded = runner.input_batch.logitsprocs.all if hasattr(runner, "input_batch") else ()
        if not loaded:
            loaded = runner.sampler.logits_processors
        for processor in loaded:
            if isinstance(processor, TTI):
                return processor.processor
        raise RuntimeError("this vLLM worker runs no TTI; pass it in logits_processors")
