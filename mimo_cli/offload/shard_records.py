"""ShardRecords: packed experts made on demand from the shards of a checkpoint, as released.

An expert is six byte ranges: three matrices and their scales. They are read wherever they lie (in an MXFP4 release next
to one another, so in one read) and rearranged into one record, without loss.
"""

from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.checkpoint.extent import Extent
from mimo_cli.checkpoint.names import expert_weight_name
from mimo_cli.checkpoint.reader import CheckpointReader
from mimo_cli.errors import CheckpointError
from mimo_cli.quant.kernels import Kernels
from mimo_cli.quant.pack import pack, packed_shape
from mimo_cli.quant.packed import PackedShape

PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


class ShardRecords:
    """Satisfies ExpertRecords. Made by `open_shard_records`; shapes are those of the first expert, all must agree."""

    is_stored_so = False

    def __init__(
        self, reader: CheckpointReader, kernels: Kernels, dtype: torch.dtype, up: PackedShape, down: PackedShape
    ) -> None:
        self.up_shape = up
        self.down_shape = down
        self.record_bytes = up.nbytes + down.nbytes
        self.stored_bytes = 0
        self._reader = reader
        self._kernels = kernels
        self._dtype = dtype

    def extents(self, layer: int, expert_id: int) -> Sequence[Extent]:
        """Return where the matrices and scales lie. Raises CheckpointError naming a tensor that is missing."""
        names = (expert_weight_name(layer, expert_id, projection) for projection in PROJECTIONS)
        return [Extent(i.shard, i.offset, i.size_bytes) for name in names for i in self._reader.parts(name)]

    def checksum(self, layer: int, expert_id: int) -> int | None:
        """Return nothing: none are noted."""
        return None

    def place(self, layer: int, expert_id: int, parts: Sequence[Tensor], slot: Tensor) -> None:
        """Pack an expert. Raises CheckpointError naming a tensor that is damaged or unlike the first expert's."""
        gate_up, down = slot.split([self.up_shape.nbytes, self.down_shape.nbytes])
        streams = ((self.up_shape, gate_up, 0), (self.up_shape, gate_up, 1), (self.down_shape, down, 0))
        left = iter(parts)
        for projection, (shape, data, stream) in zip(PROJECTIONS, streams, strict=True):
            name = expert_weight_name(layer, expert_id, projection)
            stored = self._reader.assemble(name, list(islice(left, len(self._reader.parts(name)))))
            if packed_shape([stored], self._dtype, shape.streams) != shape:
                raise CheckpointError(
                    f"{stored.source} is stored as {stored.kind} {list(stored.shape)}, "
                    f"{shape.format} {[shape.rows, shape.cols]} expected like the first expert's",
                    hint="config.json and the shards belong to different models",
                )
            pack(self._kernels, shape, [stored], data, stream)

    def close(self) -> None:
        """Nothing to give back: the shards belong to the reader."""


def open_shard_records(
    reader: CheckpointReader, config: ModelConfig, kernels: Kernels, dtype: torch.dtype
) -> ShardRecords | None:
    """Return the experts of a checkpoint as records; None where they cannot be packed, or are not as config.json says.

    Looks at the first expert. Raises CheckpointError if that is missing.
    """
    layer = next(iter(config.moe_layers), None)
    if layer is None:
        return None
    names = [expert_weight_name(layer, 0, projection) for projection in PROJECTIONS]
    gate, up, down = ([reader.stored(name)] for name in names)
    up_shape = packed_shape(up, dtype, streams=2)
    down_shape = packed_shape(down, dtype)
    if up_shape is None or down_shape is None or packed_shape(gate, dtype, streams=2) != up_shape:
        return None
    width, hidden = config.moe_intermediate_size, config.hidden_size
    expected = (width, hidden), (hidden, width), down_shape.format
    if ((up_shape.rows, up_shape.cols), (down_shape.rows, down_shape.cols), up_shape.format) != expected:
        return None
    records = ShardRecords(reader, kernels, dtype, up_shape, down_shape)
    records.stored_bytes = sum(reader.stored_bytes(name) for name in names)
    return records
