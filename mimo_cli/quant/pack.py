"""From stored matrices to packed streams: the same codes and scales in the order that the native kernels read.

Nothing is lost: fp8 stays fp8, MXFP4 stays MXFP4, bfloat16 stays bfloat16. What cannot be packed so has no packed
shape, and its holder computes from floats. A matrix comes in parts of some rows each, one above the other (q, k and v).
Letters: O output rows, I inputs (columns), S scale rows.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mimo_cli.errors import CheckpointError
from mimo_cli.quant.buffers import allocate_bytes
from mimo_cli.quant.fp8 import require_numbers
from mimo_cli.quant.kernels import Kernels
from mimo_cli.quant.mxfp4 import SCALE_NAN
from mimo_cli.quant.packed import BLOCK_ROWS, SPAN_COLS, PackedShape
from mimo_cli.quant.stored import StoredMatrix

Parts = Sequence[StoredMatrix]
"""The rows of one matrix, part by part."""


def packed_shape(parts: Parts, dtype: torch.dtype, streams: int = 1) -> PackedShape | None:
    """Return how a matrix is packed without loss for a network of `dtype`, None where it cannot be.

    Looks at shapes, dtypes and scale rows only. Parts of different kinds, fp8 blocks that split 16 rows or 128 columns,
    and floats that bfloat16 does not hold cannot.
    """
    if parts[0].packed is not None:
        return parts[0].packed if len(parts) == 1 and streams == 1 else None
    rows, cols = sum(part.shape[0] for part in parts), parts[0].shape[-1]
    kinds = {part.kind for part in parts}
    if len(kinds) > 1 or any(len(part.shape) != 2 or part.shape[1] != cols for part in parts):
        return None
    if kinds == {"fp8"}:
        fits = all(part.block[1] % SPAN_COLS == 0 for part in parts) and _block_scale_rows(parts) is not None
        return PackedShape("fp8", SPAN_COLS, rows, cols, streams) if fits else None
    if kinds == {"mxfp4"}:
        return PackedShape("mxfp4", 32, rows, cols, streams)
    floats = {part.weight.dtype for part in parts}
    rounds = dtype == torch.bfloat16 and floats <= {torch.float16, torch.float32}
    return PackedShape("bf16", SPAN_COLS, rows, cols, streams) if rounds or floats == {torch.bfloat16} else None


def pack(kernels: Kernels, shape: PackedShape, parts: Parts, data: Tensor | None = None, stream: int = 0) -> Tensor:
    """Write a matrix into a packed stream and return it; `data` uint8 [shape.nbytes], by default new memory.

    Peak memory beside the stream: the matrix once more where parts are joined or reordered.
    Raises CheckpointError naming the source if scales do not cover the weight or a number is not finite.
    """
    data = allocate_bytes(shape.nbytes) if data is None else data
    if parts[0].packed is not None:
        return data.copy_(parts[0].weight)
    for part in parts:
        try:
            _check(part)
        except CheckpointError as err:
            raise part.damaged(err) from err
    write = {"fp8": pack_fp8, "mxfp4": pack_mxfp4, "bf16": pack_bf16}[shape.format]
    write(kernels, shape, parts, data, stream)
    return data


def pack_fp8(kernels: Kernels, shape: PackedShape, parts: Parts, data: Tensor, stream: int) -> None:
    """Write block FP8: float8 [O, I], one float32 scale per 16 rows and 128 columns."""
    rows = _block_scale_rows(parts)
    if rows is None:
        raise ValueError("rows of one block do not share their scales; such a matrix has no packed shape")
    grid = torch.cat([_span_scales(part, shape.spans) for part in parts])  # [S, spans]
    kernels.pack(shape, data, stream, _joined([part.codes() for part in parts]), grid[rows])


def pack_mxfp4(kernels: Kernels, shape: PackedShape, parts: Parts, data: Tensor, stream: int) -> None:
    """Write MXFP4: nibbles uint8 [O, I/2], one e8m0 byte per 32 columns."""
    scales = _joined([part.row_scales() for part in parts])
    kernels.pack_nibbles(shape, data, stream, _joined([part.codes() for part in parts]), scales)


def pack_bf16(kernels: Kernels, shape: PackedShape, parts: Parts, data: Tensor, stream: int) -> None:
    """Write floats as bfloat16 [O, I]."""
    codes = _joined([part.codes().to(torch.bfloat16) for part in parts])
    kernels.pack(shape, data, stream, codes, torch.empty(0))


def _check(part: StoredMatrix) -> None:
    """Raise CheckpointError where a stored matrix is damaged."""
    if part.scales is None:
        return
    rows, cols = part.shape
    if part.kind == "fp8":
        expected = (int(part.scale_rows().max()) + 1, -(-cols // part.block[1]))
        if tuple(part.scales.shape) != expected:
            raise CheckpointError(f"the scale grid is {list(part.scales.shape)}, {list(expected)} expected")
        if not bool(torch.isfinite(part.scales).all()):
            raise CheckpointError("a block scale is not finite")
        require_numbers(part.weight)
        return
    if tuple(part.scales.shape) != (rows, -(-cols // 32)) or cols % 32:
        raise CheckpointError(
            f"MXFP4 scales {list(part.scales.shape)} do not cover packed weights {list(part.weight.shape)}: "
            "one scale byte for each 16 packed bytes expected"
        )
    if bool((part.scales == SCALE_NAN).any()):
        raise CheckpointError(f"an MXFP4 scale byte is NaN ({SCALE_NAN})")


def _block_scale_rows(parts: Parts) -> Tensor | None:
    """Return the scale row, in the grids of all parts, of each block of 16 rows; None where a block has several."""
    first, rows = 0, []
    for part in parts:
        rows.append(part.scale_rows() + first)
        first += part.scales.shape[0] if part.scales is not None and part.scales.dim() else 0
    joined = torch.cat(rows)
    padding = joined[-1:].expand(-len(joined) % BLOCK_ROWS)
    blocks = torch.cat([joined, padding]).view(-1, BLOCK_ROWS)
    return blocks[:, 0] if bool((blocks == blocks[:, :1]).all()) else None


def _span_scales(part: StoredMatrix, spans: int) -> Tensor:
    """Return the scales with one column per 128 columns of the matrix, [S, spans] float32."""
    assert part.scales is not None
    return part.scales.float().repeat_interleave(part.block[1] // SPAN_COLS, dim=1)[:, :spans]


def _joined(parts: list[Tensor]) -> Tensor:
    if len(parts) == 1:
        return parts[0]
    return torch.cat([part.view(torch.uint8) for part in parts]).view(parts[0].dtype)
