"""TTI as a logits processor that vLLM loads by name: `--logits-processors actors.tti_plugin:TTI`.

Owns: the one name for both of vLLM's interfaces, and what is checked of a request at the door. Called by vLLM, in the
front end (`validate_params`) and in the engine's process. Must not know: who serves the engine; docs/vllm-plugin.md
tells others how to use it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from vllm.v1.sample.logits_processor import LogitsProcessor as LogitsProcessorV1
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as LogitsProcessorV2

from actors.tti_processor import TTIProcessorV1
from actors.tti_processor_v2 import TTIProcessorV2
from actors.tti_request import PREFIX, Request
from actors.tti_slots import SlotTable

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig


class TTI(LogitsProcessorV1, LogitsProcessorV2):
    """Ends thoughts whose uncertainty has saturated; takes part in requests with keys `t2po_…` in `extra_args`."""

    processor: Any  # the one of the two whose interface vLLM speaks

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        request = Request.of(sampling_params.extra_args)
        if request is not None and request.id is not None and (sampling_params.n or 1) > 1:
            raise ValueError(
                f"{PREFIX}id with n = {sampling_params.n}: an id names one reply; leave it out or set n = 1"
            )

        grammar = sampling_params.structured_outputs is not None
        if request is not None and request.tti != "off" and grammar:
            raise ValueError(
                f"{PREFIX}… with structured output: a grammar may forbid the forced end of a thought; "
                f"leave one of the two out, or set {PREFIX}tti = 'off'"
            )

    def __init__(self, vllm_config: VllmConfig, where: Any, is_pin_memory: bool | None = None) -> None:
        """V1 passes (config, device, is_pin_memory), V2 (config, request states)."""
        from vllm.tokenizers import cached_tokenizer_from_config

        model, max_rows = vllm_config.model_config, vllm_config.scheduler_config.max_num_seqs
        is_v1 = isinstance(where, (torch.device, str))
        device = torch.device(where) if is_v1 else where.device
        slots = SlotTable(
            cached_tokenizer_from_config(model), model.get_vocab_size(), max_rows, model.max_model_len, device,
            tensors=None if is_v1 else True,
        )  # fmt: skip
        if is_v1:
            self.processor = TTIProcessorV1(slots)
        elif vllm_config.speculative_config is not None:
            raise ValueError("t2po: thoughts cannot be ended under speculative decoding; start vLLM without it")
        else:
            self.processor = TTIProcessorV2(slots, where)

    def apply(self, logits: torch.Tensor, ctx: Any = None) -> torch.Tensor:
        return self.processor.apply(logits) if ctx is None else self.processor.apply(logits, ctx)

    # V1 only

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: Any) -> None:
        self.processor.update_state(batch_update)

    # V2 only

    def add_request(self, req_idx: int, sampling_params: SamplingParams) -> bool:
        return self.processor.add_request(req_idx, sampling_params)

    def apply_staged_writes(self) -> None:
        self.processor.apply_staged_writes()
