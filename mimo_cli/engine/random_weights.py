"""Random weights where those of a checkpoint would be: a reader and records for a model that has only a configuration.

The engine built on them is the one that runs checkpoints; only the numbers mean nothing. Routing is part of them: a
router of random weights spreads evenly, a correction bias makes some experts popular.
Letters: V vocabulary, H hidden size, E experts, A active experts.
"""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from mimo_cli.checkpoint.config import AttentionConfig, ModelConfig
from mimo_cli.checkpoint.extent import Extent
from mimo_cli.checkpoint.index import TensorIndex
from mimo_cli.checkpoint.names import NamedWeight, text_weights
from mimo_cli.checkpoint.reader import CheckpointReader
from mimo_cli.engine.model_sizes import dense_shape, expert_shapes
from mimo_cli.quant.buffers import allocate_bytes
from mimo_cli.quant.linear import INIT_STD
from mimo_cli.quant.packed import PackedFormat, PackedShape
from mimo_cli.quant.random_streams import RandomStreams
from mimo_cli.quant.stored import StoredMatrix
from mimo_cli.store.plan import DenseFormat

Routing: TypeAlias = Literal["uniform", "skewed"]

ZIPF_EXPONENT = 1.0
"""Skewed routing: the expert of rank r is chosen about r^-1 times as often as the first."""

_MAX_LOAD = 0.95
"""Of the tokens at most, for the most popular experts."""

_EMBEDDING_ROWS = 8192
"""Different rows of the embedding; they repeat, which no one but a reader of the numbers notices."""


class RandomRecords:
    """Packed experts of any layer and number; satisfies the expert store's ExpertRecords."""

    is_stored_so = False

    def __init__(self, config: ModelConfig, kind: PackedFormat, streams: RandomStreams) -> None:
        self.up_shape, self.down_shape = expert_shapes(config, kind)
        self.record_bytes = self.up_shape.nbytes + self.down_shape.nbytes
        self.stored_bytes = self.record_bytes
        self._streams = streams

    def extents(self, layer: int, expert_id: int) -> Sequence[Extent]:
        """Return nothing: these experts come from no file."""
        return ()

    def checksum(self, layer: int, expert_id: int) -> int | None:
        """Return nothing: none are noted."""
        return None

    def place(self, layer: int, expert_id: int, parts: Sequence[Tensor], slot: Tensor) -> None:
        """Fill a slot, uint8 [record_bytes]; the same expert has the same weights every time."""
        key = layer << 32 | expert_id
        self._streams.fill(self.up_shape, slot[: self.up_shape.nbytes], key)
        self._streams.fill(self.down_shape, slot[self.up_shape.nbytes :], key)

    def close(self) -> None:
        """Nothing to give back."""


class RandomReader(CheckpointReader):
    """Every dense tensor of a text model: matrices as packed streams, norms of ones, a router with its bias.

    `dense` "keep" is what the releases store: FP8, and bfloat16 for the attention's output and the head.
    """

    def __init__(self, config: ModelConfig, dense: DenseFormat, routing: Routing, streams: RandomStreams) -> None:
        super().__init__(TensorIndex(Path("random"), [], {}), config)
        self._model = config
        self._dense = dense
        self._routing = routing
        self._streams = streams
        self._weights = {weight.name: weight for weight in text_weights(config)}
        self._generator = torch.Generator().manual_seed(1)

    @property
    def shapes(self) -> dict[str, PackedShape]:
        """The matrices that are packed, by name."""
        shapes = {weight.name: self._shape(weight) for weight in self._weights.values()}
        return {name: shape for name, shape in shapes.items() if shape}

    def stored(self, name: str, row_blocks: Tensor | None = None, row_order: Tensor | None = None) -> StoredMatrix:
        """Return a tensor by its official name; rows have no order that matters."""
        weight = self._weights[name]
        shape = self._shape(weight)
        if shape is None:
            return StoredMatrix("plain", self._values(weight, torch.float32), source=name)
        # Matrices must differ: an MLP whose gate and up are the same has a mean, and every token the same experts.
        data = self._streams.fill(shape, allocate_bytes(shape.nbytes), zlib.crc32(name.encode()))
        return StoredMatrix("packed", data, source=name, packed=shape)

    def stored_qkv(self, prefix: str, attention: AttentionConfig) -> list[StoredMatrix]:
        """Return q, k and v as one matrix."""
        return [self.stored(f"{prefix}.qkv_proj.weight")]

    def read(self, name: str, dtype: torch.dtype, *, shape: tuple[int, ...] | None = None) -> Tensor:
        """Return a tensor as `dtype`."""
        weight = self._weights[name]
        return super().read(name, dtype, shape=shape) if self._shape(weight) else self._values(weight, dtype)

    def _shape(self, weight: NamedWeight) -> PackedShape | None:
        return dense_shape(weight, self._dense)

    def _values(self, weight: NamedWeight, dtype: torch.dtype) -> Tensor:
        if weight.name.endswith("embed_tokens.weight"):
            return self._embedding(weight.shape[0], weight.shape[1], dtype)
        if weight.name.endswith("norm.weight"):
            return torch.ones(weight.shape, dtype=dtype)
        if weight.name.endswith("e_score_correction_bias"):
            skewed = self._routing == "skewed"
            bias = zipf_bias(self._model, self._generator) if skewed else torch.zeros(weight.shape)
            return bias.to(dtype)
        return (torch.randn(weight.shape, generator=self._generator) * INIT_STD).to(dtype)

    def _embedding(self, vocabulary: int, hidden: int, dtype: torch.dtype) -> Tensor:
        """Return [V, H] in memory that may have huge pages, so that it can serve to measure the speed of reading."""
        rows = torch.randn(min(vocabulary, _EMBEDDING_ROWS), hidden, generator=self._generator).to(dtype)
        table = allocate_bytes(vocabulary * hidden * dtype.itemsize).view(dtype).view(vocabulary, hidden)
        for part in table.split(len(rows)):
            part.copy_(rows[: len(part)])
        return table


def zipf_bias(config: ModelConfig, generator: torch.Generator) -> Tensor:
    """Return a correction bias [E] under which a random router loads its experts by Zipf's law, in random order.

    A token's score for an expert is sigmoid(z s) with z normal and s the spread of a random router's logits; an expert
    whose score exceeds a common threshold with probability p must be lifted by the distance of that quantile.
    """
    spread = INIT_STD * config.hidden_size**0.5
    load = _zipf_loads(config.n_routed_experts, config.num_experts_per_tok)
    quantile = torch.special.ndtri(1 - load.double())
    bias = -(quantile * spread).sigmoid().float()
    return (bias - bias.mean())[torch.randperm(len(bias), generator=generator)]


def _zipf_loads(experts: int, active: int) -> Tensor:
    """Return the share of tokens that choose the expert of each rank, [E], with sum A; none above _MAX_LOAD."""
    ranks = torch.arange(1, experts + 1, dtype=torch.float64) ** -ZIPF_EXPONENT
    low, high = 0.0, float(active * experts)
    for _ in range(60):  # the factor is found by halving: the sum rises with it
        middle = (low + high) / 2
        enough = float((ranks * middle).clamp(max=_MAX_LOAD).sum()) >= min(active, _MAX_LOAD * experts)
        low, high = (low, middle) if enough else (middle, high)
    return (ranks * high).clamp(max=_MAX_LOAD)
