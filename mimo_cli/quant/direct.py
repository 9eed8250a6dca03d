"""Between stored rows and packed streams in one native pass: choosing codes, moving them, decoding and comparing.

Nothing here is pinned to threads: callers work on several matrices at a time, one thread each, without the GIL.
Letters: O rows, I columns, S scale rows.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mimo_cli.quant.kernels import missing_reason
from mimo_cli.quant.packed import FORMATS, PackedShape, decode_packed

try:
    from mimo_cli.quant import _native
except ImportError:
    _native = None  # type: ignore[assignment]

_FP8, _FLOATS = 0, 1
"""Kinds of sources, as encode.hpp numbers them."""


class Difference(NamedTuple):
    """Sums of squared differences and of squared originals, and the largest difference (NaN where one is)."""

    squared_error: float
    squared_weights: float
    largest: float


def can_encode(shape: PackedShape) -> bool:
    """Tell whether `encode` makes a stream of this shape: on this processor, for whole blocks and spans."""
    return shape.format in ("int4", "mxfp4") and not missing_reason() and _native.can_encode(shape.rows, shape.cols)


def encode(
    shape: PackedShape,
    out: Tensor,
    stream: int,
    weights: Tensor,
    scales: Tensor | None = None,
    row_blocks: Tensor | None = None,
) -> Difference | None:
    """Choose int4 or mxfp4 codes and scales of a matrix, write them into a stream; None where a weight is no number.

    out uint8 [shape.nbytes]; weights [O, I] float32, or float8 with scales float32 [S, I / 128] and row_blocks [O], the
    scale row of each row. The largest difference is not looked for (0).
    """
    weights = weights.contiguous()
    _expect(tuple(weights.shape) == (shape.rows, shape.cols) and len(out) == shape.nbytes, "weights and stream")
    source, kind = [weights.data_ptr(), 0, 0], _FLOATS
    if scales is not None and row_blocks is not None:
        scales, blocks, kind = scales.float().contiguous(), row_blocks.to(torch.int32), _FP8
        covered = scales.shape[1] == shape.spans and int(row_blocks.max()) < len(scales)
        _expect(weights.dtype == torch.float8_e4m3fn and covered and len(blocks) == shape.rows, "scales")
        source[1:] = [scales.data_ptr(), blocks.data_ptr()]
    else:
        _expect(weights.dtype == torch.float32, "floats")
    sizes = FORMATS.index(shape.format), shape.group, shape.rows, shape.cols, shape.streams
    is_sound, error, squares = _native.encode(*sizes, out.data_ptr(), stream, kind, *source)
    return Difference(error, squares, 0.0) if is_sound else None


def any_nan(codes: Tensor) -> bool | None:
    """Tell whether a float8 tensor holds a NaN; None where there is no native code to look."""
    if missing_reason() or not codes.is_contiguous():
        return None
    return _native.any_fp8_nan(codes.data_ptr(), codes.numel())


def decode_streams(data: Tensor, shape: PackedShape) -> list[Tensor]:
    """Return the matrices of a stream, float32 [O, I] each, like `decode_packed`. data uint8 [shape.nbytes]."""
    if missing_reason():
        return [torch.from_numpy(matrix) for matrix in decode_packed(data.numpy(), shape)]
    data = data.contiguous()
    _expect(data.dtype == torch.uint8 and len(data) == shape.nbytes, "stream")
    matrices = [torch.empty(shape.rows, shape.cols) for _ in range(shape.streams)]
    sizes = FORMATS.index(shape.format), shape.group, shape.rows, shape.cols, shape.streams
    for stream, matrix in enumerate(matrices):
        _native.decode_stream(*sizes, data.data_ptr(), stream, matrix.data_ptr())
    return matrices


def compare(original: Tensor, other: Tensor) -> Difference:
    """Compare two float32 tensors of one shape."""
    if missing_reason():
        difference = other - original
        error = float(difference.double().square().sum())
        return Difference(error, float(original.double().square().sum()), float(difference.abs().max()))
    original, other = original.contiguous(), other.contiguous()
    _expect(original.shape == other.shape and original.dtype == other.dtype == torch.float32, "tensors")
    return Difference(*_native.compare_floats(original.data_ptr(), other.data_ptr(), original.numel()))


def _expect(fits: bool, what: str) -> None:
    if not fits:
        raise ValueError(f"the {what} do not fit one another")
