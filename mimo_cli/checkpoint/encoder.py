"""WeightEncoder: one float weight of the network -> the tensors that store it as the release would.

The counterpart of `reader.py`: block FP8 or MXFP4 by the weight's role, the rows of fused qkv dealt out to chunks, each
chunk with a grid of scales of its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.checkpoint.names import FP8_SCALE, MXFP4_SCALE, NamedWeight
from mimo_cli.checkpoint.qkv_layout import fused_row_order, scale_grid_rows
from mimo_cli.checkpoint.shard_writer import PlannedTensor
from mimo_cli.errors import CheckpointError
from mimo_cli.quant.formats import MXFP4
from mimo_cli.quant.fp8 import chunked_row_blocks, quantize_blocks
from mimo_cli.quant.mxfp4 import encode

Storage = Literal["fp8", "mxfp4", "plain"]


@dataclass(frozen=True)
class WeightFormats:
    """The format of routed experts, of the other matrices that the release quantises, and of everything else."""

    experts: Storage = "fp8"
    matrices: Literal["fp8", "plain"] = "fp8"
    plain: torch.dtype = torch.bfloat16
    router: torch.dtype = torch.float32

    def storage(self, weight: NamedWeight) -> Storage:
        """Return how a weight is quantised."""
        if weight.role == "expert":
            return self.experts
        return self.matrices if weight.role in ("linear", "qkv") else "plain"

    def plain_dtype(self, weight: NamedWeight) -> torch.dtype:
        """Return the dtype of a weight that is not quantised."""
        return {"router": self.router, "float32": torch.float32}.get(weight.role, self.plain)


class WeightEncoder:
    """Plans and makes the stored tensors of a model's weights."""

    def __init__(self, config: ModelConfig, formats: WeightFormats) -> None:
        self.formats = formats
        self._config = config
        self._block = config.weight_block_size
        self._kv_heads = config.global_attention.num_kv_heads

    def plan(self, weight: NamedWeight) -> list[PlannedTensor]:
        """Return what `encode` will make of a weight, without its values."""
        storage = self.formats.storage(weight)
        if storage == "plain":
            return [PlannedTensor(weight.name, self.formats.plain_dtype(weight), weight.shape)]
        rows, columns = weight.shape
        if storage == "mxfp4":
            scales = MXFP4.scale_shape(rows, columns) or ()
            packed = PlannedTensor(weight.name, torch.uint8, MXFP4.weight_shape(rows, columns))
            return [packed, PlannedTensor(weight.name + MXFP4_SCALE, torch.uint8, scales)]
        grid = scale_grid_rows(rows, self._chunks(weight), self._block[0]), -(-columns // self._block[1])
        codes = PlannedTensor(weight.name, torch.float8_e4m3fn, weight.shape)
        return [codes, PlannedTensor(weight.name + FP8_SCALE, torch.float32, grid)]

    def encode(self, weight: NamedWeight, values: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield the stored tensors by name. `values` has the weight's shape, fused qkv in plain order [Q; K; V].

        Raises CheckpointError if the shape is another one or a value is not finite.
        """
        if tuple(values.shape) != weight.shape:
            raise CheckpointError(f"weight `{weight.name}`: {list(weight.shape)} expected, {list(values.shape)} found")
        if weight.role == "qkv" and self._is_fused(weight):
            attention = self._config.sliding_attention if weight.sliding else self._config.global_attention
            values = values[fused_row_order(attention, self._kv_heads)]
        storage = self.formats.storage(weight)
        if storage == "plain":
            yield weight.name, values.to(self.formats.plain_dtype(weight))
            return
        if storage == "mxfp4":
            stored, scales = encode(values)
        else:
            row_blocks = chunked_row_blocks(weight.shape[0], self._chunks(weight), self._block[0])
            stored, scales = quantize_blocks(values, self._block, row_blocks)
        yield weight.name, stored
        yield weight.name + (MXFP4_SCALE if storage == "mxfp4" else FP8_SCALE), scales

    def _is_fused(self, weight: NamedWeight) -> bool:
        return weight.name.endswith(".qkv_proj.weight")

    def _chunks(self, weight: NamedWeight) -> int:
        """Return how many grids of scales a weight has: one, or one per chunk.

        Split q, k and v were quantised in chunks too (V2-Flash's k has 8 scale rows for 768); where that gives as many
        scale rows as one grid, readers take it for one.
        """
        if weight.role != "qkv":
            return 1
        rows, block_rows = weight.shape[0], self._block[0]
        same = scale_grid_rows(rows, self._kv_heads, block_rows) == scale_grid_rows(rows, 1, block_rows)
        return self._kv_heads if self._is_fused(weight) or not same else 1
