"""From stored matrices to packed streams: the same codes where the format stays, the best new ones where it changes.

Works through slabs of rows: besides the result, memory does not grow with the matrix. What is released as FP8 or floats
goes to int4 or MXFP4, and FP8 or MXFP4 to itself, in one native pass over whole matrices; the rest through floats in
the processor's cache.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mimo_cli.errors import CheckpointError
from mimo_cli.quant.direct import can_encode, encode
from mimo_cli.quant.fp8 import require_numbers
from mimo_cli.quant.mxfp4 import decode
from mimo_cli.quant.packed import BLOCK_ROWS, SPAN_COLS, PackedShape
from mimo_cli.quant.quantize import (
    Codes,
    expand_fp8,
    own_kernels,
    pack_stream,
    quantize,
    spread_block_scales,
    unpack_nibbles,
)
from mimo_cli.quant.stored import StoredMatrix

_SLAB_ELEMENTS = 1 << 19
"""2 MiB in float32; measured faster than half of that, where calls take their share."""

_DIRECT_ELEMENTS = 1 << 23
"""A matrix of MiMo-V2.5's experts in one go; where rows are reordered or are floats, so many are copied."""

_NAN_SCALE = 255


@dataclass
class Error:
    """What was lost so far: sums of squared differences and of squared weights."""

    squared_error: float = 0.0
    squared_weights: float = 0.0

    def add(self, other: "Error") -> None:
        """Count another part."""
        self.squared_error += other.squared_error
        self.squared_weights += other.squared_weights

    @property
    def relative(self) -> float:
        """Root of the ratio of the sums; 0 where there is nothing to lose."""
        return math.sqrt(self.squared_error / self.squared_weights) if self.squared_weights > 0 else 0.0


def passes_through(matrix: StoredMatrix, shape: PackedShape) -> bool:
    """Tell whether a matrix is packed by moving its codes and scales, bit for bit."""
    if matrix.kind == "mxfp4":
        return shape.format == "mxfp4"
    return matrix.kind == "fp8" and shape.format == "fp8" and matrix.block[1] == SPAN_COLS


def pack_matrices(matrices: Sequence[StoredMatrix], shape: PackedShape, out: Tensor) -> Error:
    """Pack the matrices of one stream into `out` uint8 [shape.nbytes]; returns what was lost.

    Raises CheckpointError naming the matrix if it is damaged or not of the shape.
    """
    for matrix in matrices:
        if matrix.shape != (shape.rows, shape.cols):
            raise CheckpointError(f"{matrix.source}: shape {list(matrix.shape)}, {[shape.rows, shape.cols]} expected")
    lost = Error()
    is_direct = all(_is_direct(matrix, shape) for matrix in matrices)
    for start, rows in slabs(shape.rows, shape.cols, _DIRECT_ELEMENTS if is_direct else _SLAB_ELEMENTS):
        first = start // BLOCK_ROWS * shape.block_bytes
        slab = replace(shape, rows=rows)
        piece = out[first : first + slab.nbytes]
        if slab.head_bytes:
            piece.zero_()  # the end of a head is no one's; the same weights must give the same bytes
        codes = []
        for stream, matrix in enumerate(matrices):
            try:
                if is_direct:
                    lost.add(_encode_direct(matrix, start, slab, piece, stream))
                    continue
                part, error = _encode_rows(matrix, start, rows, shape)
            except CheckpointError as err:
                raise matrix.damaged(err) from err
            codes.append(part)
            lost.add(error)
        if codes:
            pack_stream(slab, codes, piece)
    return lost


def _is_direct(matrix: StoredMatrix, shape: PackedShape) -> bool:
    """Tell whether stored rows go into the stream in one native pass."""
    if passes_through(matrix, shape):
        return own_kernels() is not None
    is_source = matrix.kind == "plain" or (matrix.kind == "fp8" and matrix.block[1] == SPAN_COLS)
    return is_source and can_encode(shape)


def _encode_direct(matrix: StoredMatrix, start: int, slab: PackedShape, out: Tensor, stream: int) -> Error:
    """Write the rows of a slab into `out` uint8 [slab.nbytes]; returns what was lost."""
    if passes_through(matrix, slab):
        _move_rows(matrix, start, slab, out, stream)
        return Error()
    codes, order = _codes(matrix, start, slab.rows)
    if matrix.kind == "plain" or matrix.scales is None:
        lost = encode(slab, out, stream, codes.float())
    else:
        scales = matrix.scales.float()
        if not bool(torch.isfinite(scales).all()):
            raise CheckpointError("a block scale is not finite")
        lost = encode(slab, out, stream, codes, scales, _scale_rows(matrix, order))
    if lost is None:
        raise CheckpointError("a weight is not finite, or too large to be quantised")
    return Error(lost.squared_error, lost.squared_weights)


def slabs(rows: int, cols: int, elements: int = _SLAB_ELEMENTS) -> list[tuple[int, int]]:
    """Cut rows into slabs (first row, number of rows) of whole blocks of 16 and about so many elements."""
    step = max(BLOCK_ROWS, elements // cols // BLOCK_ROWS * BLOCK_ROWS)
    return [(start, min(step, rows - start)) for start in range(0, rows, step)]


def rows_of(matrix: StoredMatrix, start: int, rows: int) -> Tensor:
    """Return some rows of a matrix as float32 [rows, I], without looking at the others."""
    codes, order = _codes(matrix, start, rows)
    if matrix.kind == "fp8" and matrix.scales is not None:
        if matrix.block[1] != SPAN_COLS:
            return matrix.floats(torch.float32)[start : start + rows]
        return expand_fp8(codes, matrix.scales, _scale_rows(matrix, order))
    if matrix.kind == "mxfp4" and matrix.scales is not None:
        return decode(codes, matrix.scales[order], torch.float32)
    return codes.float()


def _encode_rows(matrix: StoredMatrix, start: int, rows: int, shape: PackedShape) -> tuple[Codes, Error]:
    if passes_through(matrix, shape):
        return _stored_codes(matrix, start, rows), Error()
    weights = rows_of(matrix, start, rows)
    codes = quantize(weights, shape.format, shape.group)
    flat = weights.view(-1)
    return codes, Error(codes.squared_error, float(torch.dot(flat, flat)))


def _move_rows(matrix: StoredMatrix, start: int, slab: PackedShape, out: Tensor, stream: int) -> None:
    """Write stored codes and scales into a stream with the native kernels."""
    kernels = own_kernels()
    if kernels is None or matrix.scales is None:
        raise ValueError("native kernels and scales expected")
    if slab.format == "mxfp4":
        codes, order = _codes(matrix, start, slab.rows)
        kernels.pack_nibbles(slab, out, stream, codes, _mxfp4_scales(matrix, order))
        return
    moved = _stored_codes(matrix, start, slab.rows)
    kernels.pack(slab, out, stream, moved.codes, moved.scales)


def _stored_codes(matrix: StoredMatrix, start: int, rows: int) -> Codes:
    codes, order = _codes(matrix, start, rows)
    if matrix.scales is None:
        raise CheckpointError("a quantised matrix without scales")
    if matrix.kind == "mxfp4":
        return Codes(unpack_nibbles(codes), _mxfp4_scales(matrix, order))
    require_numbers(codes)
    scales = spread_block_scales(matrix.scales, _scale_rows(matrix, order))
    if not bool(torch.isfinite(scales).all()):
        raise CheckpointError("a block scale is not finite")
    return Codes(codes, scales)


def _mxfp4_scales(matrix: StoredMatrix, order: slice | Tensor) -> Tensor:
    if matrix.scales is None:
        raise CheckpointError("a quantised matrix without scales")
    scales = matrix.scales[order].contiguous()
    if bool((scales == _NAN_SCALE).any()):
        raise CheckpointError(f"an MXFP4 scale byte is NaN ({_NAN_SCALE})")
    return scales


def _codes(matrix: StoredMatrix, start: int, rows: int) -> tuple[Tensor, slice | Tensor]:
    """Return stored rows in order, and which they are."""
    if matrix.row_order is None:
        order: slice | Tensor = slice(start, start + rows)
        return matrix.weight[order], order
    order = matrix.row_order[start : start + rows]
    if matrix.kind == "plain":
        return matrix.weight[order], order
    return matrix.weight.view(torch.uint8)[order].view(matrix.weight.dtype), order


def _scale_rows(matrix: StoredMatrix, order: slice | Tensor) -> Tensor:
    stored_rows = torch.arange(order.start, order.stop) if isinstance(order, slice) else order
    return stored_rows // matrix.block[0] if matrix.row_blocks is None else matrix.row_blocks[stored_rows]
