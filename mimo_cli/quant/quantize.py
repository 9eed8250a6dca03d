"""Choosing codes and scales for float weights, and putting them into packed streams: native, or torch and numpy.

Both ways write the same layout; the native way is many times faster and its int4 scales may differ in the last bit.
Letters: O rows, I columns, G groups of columns that share a scale.
"""

import threading
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mimo_cli.errors import CheckpointError
from mimo_cli.quant import mxfp4
from mimo_cli.quant.fp8 import expand_block_scales, plain_row_blocks, quantize_blocks
from mimo_cli.quant.kernels import Kernels, missing_reason
from mimo_cli.quant.packed import BLOCK_ROWS, SPAN_COLS, PackedFormat, PackedShape
from mimo_cli.quant.packing import pack_matrix

try:
    from mimo_cli.quant import _native
except ImportError:
    _native = None  # type: ignore[assignment]

_INT4_DIVISORS = (-7.0, -7.5, -8.0, -8.6, -9.3, 7.2)
"""The signed largest magnitude of a group is tried at these codes; -8 and beyond use all sixteen levels."""

_HALF_MAX = 65504.0


class Codes(NamedTuple):
    """One matrix ready to be packed: `codes` [O, I] and `scales` as `Kernels.pack` takes them.

    `squared_error` is the sum of squared differences to the float weights, 0 where nothing was lost.
    """

    codes: Tensor
    scales: Tensor
    squared_error: float = 0.0


def quantize(weights: Tensor, kind: PackedFormat, group: int) -> Codes:
    """Choose codes for float32 weights [O, I]. Raises CheckpointError where a weight is not finite."""
    weights = weights.contiguous()
    if weights.dtype != torch.float32 or weights.dim() != 2:
        raise ValueError(f"float32 weights [O, I] expected, found {weights.dtype} {list(weights.shape)}")
    if not bool(torch.isfinite(torch.dot(weights.view(-1), weights.view(-1)))):
        raise CheckpointError("a weight is not finite, or too large to be quantised")
    if kind == "bf16":
        codes = weights.bfloat16()
        return Codes(codes, torch.empty(0), _squared(codes.float() - weights))
    if kind == "fp8":
        stored, scales = quantize_blocks(weights)
        error = _squared(expand_block_scales(stored, scales, torch.float32) - weights)
        return Codes(stored, spread_block_scales(scales, plain_row_blocks(len(weights), SPAN_COLS)), error)
    if missing_reason():
        return _quantize_with_torch(weights, kind, group)
    rows, cols = weights.shape
    codes = torch.empty(rows, cols, dtype=torch.uint8 if kind == "mxfp4" else torch.int8)
    groups = -(-cols // (SPAN_COLS if kind == "int8" else group))
    scales = torch.empty(rows, groups, dtype=torch.uint8 if kind == "mxfp4" else torch.float16)
    ends = codes.data_ptr(), scales.data_ptr()
    if kind == "int4":
        error = _native.quantize_int4(weights.data_ptr(), 0, rows, cols, group, *ends)
    elif kind == "int8":
        error = _native.quantize_int8(weights.data_ptr(), rows, cols, *ends)
    else:
        error = _native.quantize_mxfp4(weights.data_ptr(), rows, cols, *ends)
    return Codes(codes, scales, float(error))


def expand_fp8(codes: Tensor, scales: Tensor, row_blocks: Tensor) -> Tensor:
    """Return float32 [O, I] of FP8 in blocks of 128 columns.

    codes [O, I] float8; scales [S, ceil(I/128)] float32; row_blocks [O] int64 is the scale row of each row. Raises
    CheckpointError where the scales do not cover the codes; a NaN stays one.
    """
    rows, cols = codes.shape
    codes, scales = codes.contiguous(), scales.float().contiguous()
    if scales.shape[1] != -(-cols // SPAN_COLS) or (rows and int(row_blocks.max()) >= scales.shape[0]):
        raise CheckpointError(f"the scale grid {list(scales.shape)} does not cover weights {list(codes.shape)}")
    if missing_reason():
        used = scales[: int(row_blocks.max()) + 1]
        return expand_block_scales(codes, used, torch.float32, (1, SPAN_COLS), row_blocks)
    out, blocks = torch.empty(rows, cols), row_blocks.to(torch.int32)
    ends = codes.data_ptr(), scales.data_ptr(), blocks.data_ptr()
    _native.expand_fp8(*ends, scales.shape[1], rows, cols, out.data_ptr())
    return out


def spread_block_scales(scales: Tensor, row_blocks: Tensor) -> Tensor:
    """Repeat block scales [S, spans] for the blocks of 16 rows of a packed fp8 stream: [ceil(O/16), spans] float32.

    row_blocks [O] is the scale row of each row. Raises CheckpointError where 16 rows do not share one.
    """
    first = row_blocks[::BLOCK_ROWS]
    if not torch.equal(first.repeat_interleave(BLOCK_ROWS)[: len(row_blocks)], row_blocks):
        raise CheckpointError(f"{BLOCK_ROWS} rows of an FP8 matrix have several scales, which cannot be packed")
    return scales.float()[first].contiguous()


def pack_stream(shape: PackedShape, matrices: Sequence[Codes], out: Tensor | None = None) -> Tensor:
    """Pack the matrices of a stream; returns uint8 [shape.nbytes], written into `out` where that is given."""
    out = torch.empty(shape.nbytes, dtype=torch.uint8) if out is None else out
    if len(matrices) != shape.streams:
        raise ValueError(f"{shape.streams} matrices expected, {len(matrices)} found")
    if shape.head_bytes:
        out.zero_()  # the end of a head is no one's; the same weights must give the same bytes
    kernels = own_kernels()
    for stream, matrix in enumerate(matrices):
        if kernels:
            kernels.pack(shape, out, stream, matrix.codes, matrix.scales)
        else:
            pack_matrix(shape, out.numpy(), stream, matrix.codes, matrix.scales)
    return out


_local = threading.local()


def own_kernels() -> Kernels | None:
    """Return kernels of one thread for the calling thread: conversion is parallel over matrices, not inside them."""
    if missing_reason():
        return None
    if not hasattr(_local, "kernels"):
        _local.kernels = Kernels("auto", 1)
    kernels: Kernels = _local.kernels
    return kernels


def _squared(difference: Tensor) -> float:
    return float(difference.double().square().sum())


def _quantize_with_torch(weights: Tensor, kind: PackedFormat, group: int) -> Codes:
    if kind == "mxfp4":
        return _mxfp4_with_torch(weights)
    rows, cols = weights.shape
    group = SPAN_COLS if kind == "int8" else group
    padded = torch.nn.functional.pad(weights, (0, -cols % group)).view(rows, -1, group)  # [O, G, group]
    if kind == "int8":
        scales = (padded.abs().amax(dim=2) / 127).clamp(max=_HALF_MAX).half()
        codes = _codes(padded, scales.float(), -127, 127)
    else:
        scales = _int4_scales(padded, weights.abs())
        codes = _codes(padded, scales.float(), -8, 7)
    error = _squared(codes * scales.float()[:, :, None] - padded)
    return Codes(codes.to(torch.int8).reshape(rows, -1)[:, :cols].contiguous(), scales, error)


def _int4_scales(groups: Tensor, magnitudes: Tensor) -> Tensor:
    """Choose float16 scales [O, G] for groups [O, G, n] as the native search does; ragged ones average real columns."""
    n = groups.shape[2]
    last = magnitudes.shape[1] - (groups.shape[1] - 1) * n
    counts = torch.full((groups.shape[1],), float(n))
    counts[-1] = last
    importance = groups.abs() + (groups.abs().sum(dim=2) / counts)[:, :, None]
    peak = groups.gather(2, groups.abs().argmax(dim=2, keepdim=True)).squeeze(2)
    best, best_error = torch.zeros_like(peak), torch.full_like(peak, float("inf"))
    for divisor in (*_INT4_DIVISORS, None):
        scale = peak / divisor if divisor else _least_squares(groups, importance, best)
        scale = scale.clamp(-_HALF_MAX, _HALF_MAX).half().float()
        difference = groups - _codes(groups, scale, -8, 7) * scale[:, :, None]
        error = (importance * difference.square()).sum(dim=2)
        best = torch.where(error < best_error, scale, best)
        best_error = torch.minimum(error, best_error)
    return best.half()


def _least_squares(groups: Tensor, importance: Tensor, scale: Tensor) -> Tensor:
    codes = _codes(groups, scale, -8, 7)
    top, bottom = (importance * codes * groups).sum(dim=2), (importance * codes.square()).sum(dim=2)
    return torch.where(bottom > 0, top / bottom.clamp(min=1e-30), scale)


def _codes(groups: Tensor, scales: Tensor, low: int, high: int) -> Tensor:
    inverse = torch.where(scales != 0, 1 / scales, torch.zeros_like(scales))
    return (groups * inverse[:, :, None]).round().clamp(low, high)


def _mxfp4_with_torch(weights: Tensor) -> Codes:
    cols = weights.shape[1]
    padded = torch.nn.functional.pad(weights, (0, -cols % mxfp4.BLOCK))
    packed, scales = mxfp4.encode(padded)
    error = _squared(mxfp4.decode(packed, scales, torch.float32) - padded)
    return Codes(unpack_nibbles(packed)[:, :cols].contiguous(), scales, error)


def unpack_nibbles(packed: Tensor) -> Tensor:
    """Turn MXFP4 bytes [O, I/2] into one code per byte [O, I] uint8; the low nibble is the even column."""
    return torch.stack([packed & 15, packed >> 4], dim=2).view(packed.shape[0], -1)
