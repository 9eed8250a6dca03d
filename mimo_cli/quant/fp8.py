"""Block FP8: float8_e4m3fn weights with one float32 scale per block of rows and columns.

Owns the arithmetic of the format both ways. Which rows share a scale row is the caller's knowledge (`row_blocks`):
most matrices use plain blocks, the fused qkv of the release restarts its grid in every chunk.

Letters: O output rows, I inputs (columns), B block size, S scale rows.
"""

import torch
from torch import Tensor

from mimo_cli.errors import CheckpointError
from mimo_cli.quant.direct import any_nan

FP8_MAX = 448.0
"""Largest finite magnitude of e4m3fn."""

DEFAULT_BLOCK = (128, 128)

_SLAB_ELEMENTS = 1 << 19
"""Matrices are expanded in slabs of rows of about this many elements: the float32 values stay in the CPU cache."""

_EXPONENT_GAP = 256.0
"""float16's exponent bias is 15, e4m3's is 7: aligned bits read as float16 are too small by 2^8."""

# A byte is NaN where its low seven bits are all set: adding one then carries into the high bit. Eight bytes at a time.
_LOW_SEVEN_BITS, _ONES, _HIGH_BITS = 0x7F7F7F7F7F7F7F7F, 0x0101010101010101, -0x7F7F7F7F7F7F7F80


def plain_row_blocks(rows: int, block_rows: int) -> Tensor:
    """Return the scale row of each weight row, [rows] int64, for blocks counted from the first row."""
    return torch.arange(rows) // block_rows


def chunked_row_blocks(rows: int, chunks: int, block_rows: int) -> Tensor:
    """Return the scale row of each weight row, [rows] int64, for a matrix of `chunks` equal parts.

    Each part was quantised on its own: its grid restarts at its first row and its last block may be ragged.
    """
    chunk_rows = rows // chunks
    row = torch.arange(rows)
    return row // chunk_rows * -(-chunk_rows // block_rows) + row % chunk_rows // block_rows


def expand_block_scales(
    weight: Tensor,
    scale_inv: Tensor,
    dtype: torch.dtype,
    block: tuple[int, int] = DEFAULT_BLOCK,
    row_blocks: Tensor | None = None,
) -> Tensor:
    """Expand an FP8 weight stored with one scale per block.

    weight [O, I] float8_e4m3fn, as stored; scale_inv [S, ceil(I/B)] float32, multiplied (the vendor's name);
    row_blocks [O] int64 gives the scale row of each weight row, in any order; by default row // B. The product is
    computed in float32, then rounded to `dtype`. Returns a new [O, I] tensor; peak memory is that and one slab of rows.
    Raises CheckpointError if the scale grid does not cover the weight, or if a weight or a scale is not finite.
    """
    rows, columns = weight.shape
    row_blocks = plain_row_blocks(rows, block[0]) if row_blocks is None else row_blocks
    expected = _grid(row_blocks, columns, block[1])
    if tuple(scale_inv.shape) != expected:
        raise CheckpointError(f"the scale grid is {list(scale_inv.shape)}, {list(expected)} expected")
    scales = scale_inv.to(torch.float32)
    if not bool(torch.isfinite(scales).all()):
        raise CheckpointError("a block scale is not finite")
    codes = weight.contiguous().view(torch.uint8)
    scales = scales * _EXPONENT_GAP
    if not bool(torch.isfinite(scales).all()):  # absurd, but must not become infinity silently
        raise CheckpointError("a block scale is larger than float32 holds with its weights")
    result = torch.empty(rows, columns, dtype=dtype)
    slab_rows = max(1, _SLAB_ELEMENTS // max(columns, 1))
    for start in range(0, rows, slab_rows):
        slab = slice(start, start + slab_rows)
        result[slab] = _times_blocks(_decode(codes[slab]), scales[row_blocks[slab]], block[1])
    return result


def require_numbers(weight: Tensor) -> None:
    """Raise CheckpointError if a weight of float8_e4m3fn [O, I] is NaN."""
    found = any_nan(weight)
    if found:
        raise CheckpointError("a weight is NaN")
    if found is not None:
        return
    codes = weight.contiguous().view(torch.uint8)
    slab_rows = max(1, _SLAB_ELEMENTS // max(weight.shape[1], 1))
    for start in range(0, weight.shape[0], slab_rows):
        _require_numbers(codes[start : start + slab_rows])


def quantize_blocks(
    weight: Tensor, block: tuple[int, int] = DEFAULT_BLOCK, row_blocks: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Quantise a matrix to FP8 blocks as the release does: scale = largest magnitude of the block / 448.

    weight [O, I] of any float dtype; row_blocks as in `expand_block_scales`. Returns float8_e4m3fn [O, I] and
    float32 scales [S, ceil(I/B)]; a block of zeros gets scale 1. Raises CheckpointError if a weight is not finite.
    """
    values = weight.to(torch.float32)
    if not bool(torch.isfinite(values).all()):
        raise CheckpointError("a weight that is not finite cannot be quantised to FP8")
    rows, columns = values.shape
    row_blocks = plain_row_blocks(rows, block[0]) if row_blocks is None else row_blocks
    grid = _grid(row_blocks, columns, block[1])
    padded = torch.nn.functional.pad(values.abs(), (0, grid[1] * block[1] - columns))
    row_peaks = padded.view(rows, grid[1], block[1]).amax(dim=2)  # [O, ceil(I/B)]
    peaks = torch.zeros(grid).scatter_reduce_(0, row_blocks[:, None].expand_as(row_peaks), row_peaks, "amax")
    scales = peaks / FP8_MAX
    scales = torch.where(scales > 0, scales, torch.ones_like(scales))
    per_row = scales[row_blocks].repeat_interleave(block[1], dim=1)[:, :columns]  # [O, I]
    return (values / per_row).clamp_(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn), scales


def _grid(row_blocks: Tensor, columns: int, block_columns: int) -> tuple[int, int]:
    scale_rows = int(row_blocks.max()) + 1 if len(row_blocks) else 0
    return scale_rows, -(-columns // block_columns)


def _decode(codes: Tensor) -> Tensor:
    """Turn e4m3 codes [n, I] uint8 into their float32 values / 256, exactly; raises CheckpointError at a NaN.

    Sign, exponent and mantissa move to float16's places. torch's own conversion gives the same numbers, four times
    slower.
    """
    _require_numbers(codes)
    bits = codes.view(torch.int8).to(torch.int16) << 7  # the sign extends into bit 14 ...
    bits &= ~0x4000  # ... which belongs to the exponent
    return bits.view(torch.float16).to(torch.float32)


def _require_numbers(codes: Tensor) -> None:
    words = codes.view(torch.int64) if codes.shape[1] % 8 == 0 and codes.storage_offset() % 8 == 0 else None
    if words is None:
        nan_count = torch.count_nonzero((codes & 0x7F) == 0x7F)
    else:
        nan_count = torch.count_nonzero(((words & _LOW_SEVEN_BITS) + _ONES) & _HIGH_BITS)
    if int(nan_count):
        raise CheckpointError("a weight is NaN")


def _times_blocks(values: Tensor, scales: Tensor, block_columns: int) -> Tensor:
    """Multiply values [n, I] in place by scales [n, ceil(I/B)], B columns each."""
    rows, columns = values.shape
    if columns % block_columns:
        return values.mul_(scales.repeat_interleave(block_columns, dim=1)[:, :columns])
    values.view(rows, -1, block_columns).mul_(scales[:, :, None])
    return values
