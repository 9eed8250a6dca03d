"""StoredMatrix: numbers as a checkpoint stores them, before anybody decides what to compute with.

Two ways lead on: `floats` dequantises, `pack.py` rearranges the same codes and scales for the native kernels.
Letters: O output rows, I inputs (columns).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mimo_cli.errors import CheckpointError
from mimo_cli.quant.fp8 import DEFAULT_BLOCK, expand_block_scales
from mimo_cli.quant.mxfp4 import decode
from mimo_cli.quant.packed import PackedShape, decode_packed

DAMAGED_HINT = "the file is damaged; fetch that shard again"

_PLAIN_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class StoredMatrix:
    """A tensor in its stored form, read-only; the bytes are still where they were.

    kind        "fp8": float8 [O, I] and float32 scales per block; "mxfp4": uint8 [O, I/2] and uint8 [O, I/32];
                "plain": a tensor of any shape without scales; "packed": uint8, a packed stream of `packed`'s shape
    row_blocks  fp8: the scale row of each stored row, [O] int64; None: row // block rows
    row_order   the stored row that each row of the matrix is, [O] int64; None: as stored
    source      what errors call it
    """

    kind: Literal["fp8", "mxfp4", "plain", "packed"]
    weight: Tensor
    scales: Tensor | None = None
    block: tuple[int, int] = DEFAULT_BLOCK
    row_blocks: Tensor | None = None
    row_order: Tensor | None = None
    source: str = "matrix"
    packed: PackedShape | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape as numbers, not as packed bytes."""
        if self.packed is not None:
            return self.packed.rows, self.packed.cols
        shape = tuple(self.weight.shape)
        return (shape[0], 2 * shape[1]) if self.kind == "mxfp4" else shape

    def codes(self) -> Tensor:
        """Return the stored weight with its rows in order: a view, or a copy where the order is another."""
        if self.row_order is None:
            return self.weight
        return self.weight.view(torch.uint8)[self.row_order].view(self.weight.dtype)

    def scale_rows(self) -> Tensor:
        """Return the scale row of each row of the matrix, [O] int64 (fp8)."""
        row_blocks = self.row_blocks
        if row_blocks is None:
            row_blocks = torch.arange(len(self.weight)) // self.block[0]
        return row_blocks if self.row_order is None else row_blocks[self.row_order]

    def row_scales(self) -> Tensor:
        """Return the scales with their rows in order (mxfp4)."""
        assert self.scales is not None
        return self.scales if self.row_order is None else self.scales[self.row_order]

    def floats(self, dtype: torch.dtype) -> Tensor:
        """Return the numbers as `dtype` in new memory; quantised ones are computed in float32, then rounded.

        Raises CheckpointError naming the source if they are damaged.
        """
        try:
            if self.packed is not None:
                return torch.from_numpy(decode_packed(self.weight.numpy(), self.packed)[0]).to(dtype)
            if self.scales is not None and self.kind == "fp8":
                return expand_block_scales(self.codes(), self.scales, dtype, self.block, self.scale_rows())
            if self.scales is not None and self.kind == "mxfp4":
                return decode(self.codes(), self.row_scales(), dtype)
            if dtype.is_floating_point and self.weight.dtype not in _PLAIN_FLOATS:
                raise CheckpointError(f"stored as {self.weight.dtype} without scales; a float dtype expected")
            return self.codes().to(dtype, copy=self.row_order is None)
        except CheckpointError as err:
            raise self.damaged(err) from err

    def damaged(self, err: CheckpointError) -> CheckpointError:
        """Return an error with this matrix's name in front."""
        return CheckpointError(f"{self.source}: {err}", hint=DAMAGED_HINT)
