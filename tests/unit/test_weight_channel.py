"""The NCCL way of the weights, both of vLLM's ends joined by a queue instead of NCCL: no GPU is needed for it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.distributed.weight_transfer import nccl_engine
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

from actors import weight_channel
from actors.weight_channel import ChannelEngine, bytes_of, channel_init
from actors.weight_transfer import WeightTransferError
from learner.weight_sender import NoCalls, WeightSenderError, shapes_of, weight_checksums, weight_source

WEIGHTS = {
    "embed": torch.randn(5, 4),
    "norm": torch.ones(4, dtype=torch.bfloat16),
    "layer": torch.randn(4, 6).t(),
}


class Wire:
    """A communicator of two ranks: what one side broadcasts is what the other receives."""

    def __init__(self) -> None:
        self._sent: queue.Queue[torch.Tensor] = queue.Queue()

    def sender(self) -> Any:
        return SimpleNamespace(broadcast=lambda tensor, src, stream=None: self._sent.put(tensor.clone()))

    def receiver(self) -> Any:
        def broadcast(tensor: torch.Tensor, src: int, stream: Any = None) -> None:
            tensor.copy_(self._sent.get(timeout=10))

        return SimpleNamespace(broadcast=broadcast)


class Model(torch.nn.Module):
    """Loads tensors under their names, as vLLM's models do; without the reload machinery."""

    def __init__(self) -> None:
        super().__init__()
        for name, tensor in WEIGHTS.items():
            self.register_parameter(name, torch.nn.Parameter(torch.zeros(tensor.shape, dtype=tensor.dtype)))

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        loaded = set()
        for name, tensor in weights:
            getattr(self, name).data.copy_(tensor)
            loaded.add(name)
        return loaded


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, ChannelEngine]:
    """vLLM's sender and our receiver, joined, not packed: packing needs CUDA streams."""
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: None)
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: None)
    wire = Wire()
    text_config = SimpleNamespace(tie_word_embeddings=False)
    vllm_config = SimpleNamespace(parallel_config=None, model_config=SimpleNamespace(hf_text_config=text_config))
    engine = ChannelEngine(None, vllm_config, torch.device("cpu"), Model())  # type: ignore[arg-type]
    engine.model_update_group = wire.receiver()
    current: dict[str, torch.Tensor] = {}
    sender = nccl_engine.NCCLTrainerWeightTransferEngine(client=NoCalls(), source=weight_source(current), packed=False)
    sender.model_update_group = wire.sender()
    sender.current = current  # type: ignore[attr-defined]
    return sender, engine


def transfer(sender: Any, engine: ChannelEngine, weights: dict[str, torch.Tensor], verify: bool) -> None:
    sender.current.update(weights)
    sending = threading.Thread(target=sender.send_weights)
    sending.start()
    names, dtype_names, shapes = shapes_of(weights)
    info = {"names": names, "dtype_names": dtype_names, "shapes": shapes, "verify": verify}
    try:
        engine.update_weights(info)
    finally:
        sending.join(10)


def test_weights_arrive_and_both_sides_sum_up_the_same(ends: tuple[Any, ChannelEngine]) -> None:
    sender, engine = ends
    transfer(sender, engine, WEIGHTS, verify=True)
    for name, tensor in engine.model.named_parameters():
        assert torch.equal(tensor, WEIGHTS[name]), name
    assert engine.arrived == weight_checksums(WEIGHTS)
    assert isinstance(engine.model, Model), "the model is itself again after an update"
    transfer(sender, engine, WEIGHTS, verify=False)
    assert engine.arrived is None


def test_changed_on_the_way_shows(ends: tuple[Any, ChannelEngine]) -> None:
    sender, engine = ends
    receive = engine.model_update_group.broadcast  # type: ignore[union-attr]

    def flipping(tensor: torch.Tensor, src: int, stream: Any = None) -> None:
        receive(tensor, src=src)
        if tensor.shape == (6, 4):
            tensor[5, 3] = -tensor[5, 3]

    engine.model_update_group = SimpleNamespace(broadcast=flipping)  # type: ignore[assignment]
    transfer(sender, engine, WEIGHTS, verify=True)
    sent = weight_checksums(WEIGHTS)
    assert engine.arrived is not None
    assert [name for name in sent if sent[name] != engine.arrived[name]] == ["layer"]


def test_update_that_lacks_a_weight_is_refused(ends: tuple[Any, ChannelEngine]) -> None:
    sender, engine = ends
    with pytest.raises(WeightTransferError, match="1 of 3 weights were not given, such as .*'norm'"):
        transfer(sender, engine, {name: WEIGHTS[name] for name in ("embed", "layer")}, verify=False)


def test_vllm_takes_our_messages() -> None:
    info = ChannelEngine.init_info_cls(**channel_init("127.0.0.1", 2345, 2, 3))
    assert (info.rank_offset, info.world_size, info.packed) == (2, 3, True)
    sender = nccl_engine.NCCLTrainerInitInfo(master_address="127.0.0.1", master_port=2345, world_size=3, rank=0)
    assert (sender.packed, sender.packed_buffer_size_bytes) == (info.packed, info.packed_buffer_size_bytes)
    assert sender.packed_num_buffers == info.packed_num_buffers
    assert weight_channel.BACKEND in WeightTransferEngineFactory._registry
    _, dtype_names, shapes = shapes_of(WEIGHTS)
    assert bytes_of(dtype_names, shapes) == sum(tensor.numel() * tensor.element_size() for tensor in WEIGHTS.values())


def test_learner_without_weights_says_so() -> None:
    from learner.weight_sender import WeightSender

    with pytest.raises(WeightSenderError, match="only the first rank"):
        WeightSender.send(SimpleNamespace(), {})  # type: ignore[arg-type]
