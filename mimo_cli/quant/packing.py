"""Writing packed streams in numpy: the inverse of `packed.decode_packed`, for machines without the native kernels."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mimo_cli.quant.packed import BLOCK_ROWS, SPAN_COLS, Bytes, PackedShape


def pack_matrix(shape: PackedShape, data: Bytes, stream: int, codes: Tensor, scales: Tensor) -> None:
    """Write one matrix into stream `stream` of `data` (uint8 [shape.nbytes]) in place.

    codes and scales are as `Kernels.pack` takes them. Padding gets value and scale zero; the end of an
    fp8 head is left as it is.
    """
    blocks = data.reshape(shape.blocks, shape.block_bytes)
    spans = blocks[:, shape.head_bytes :].reshape(shape.blocks, shape.spans, shape.span_bytes)
    at = stream * shape.code_bytes
    spans[:, :, at : at + shape.code_bytes] = _lines(_by_span(shape, codes), shape)
    if shape.format == "fp8":
        at = stream * shape.spans * 4
        heads = np.ascontiguousarray(scales.numpy()).view(np.uint8)
        blocks[:, at : at + shape.spans * 4] = heads.reshape(shape.blocks, -1)
    elif shape.format != "bf16":
        at = shape.streams * shape.code_bytes + stream * shape.scale_bytes
        spans[:, :, at : at + shape.scale_bytes] = _scale_bytes(shape, scales)


def _by_span(shape: PackedShape, codes: Tensor) -> NDArray[Any]:
    """Pad codes to whole blocks and spans: [B, S, 16, 128] of their element type."""
    values = codes.contiguous()
    if shape.format in ("int4", "int8"):
        values = (values.to(torch.int16) + (8 if shape.format == "int4" else 128)).to(torch.uint8)
    elif shape.format == "bf16":
        values = values.view(torch.int16)
    else:
        values = values.view(torch.uint8)
    zero = {"int4": 8, "int8": 128}.get(shape.format, 0)
    padding = (0, shape.spans * SPAN_COLS - shape.cols, 0, shape.blocks * BLOCK_ROWS - shape.rows)
    padded = torch.nn.functional.pad(values, padding, value=zero).numpy()
    return padded.reshape(shape.blocks, BLOCK_ROWS, shape.spans, SPAN_COLS).transpose(0, 2, 1, 3)


def _lines(values: NDArray[Any], shape: PackedShape) -> Bytes:
    """values [B, S, 16, 128] -> code bytes [B, S, code_bytes] in the order of the stream."""
    b, s = values.shape[:2]
    cells: NDArray[Any]
    if shape.format in ("int4", "mxfp4"):
        halves = values.astype(np.uint8).reshape(b, s, BLOCK_ROWS, 16, 2, 4)  # row, line of 8 columns, half, byte
        halves = halves.transpose(0, 1, 3, 2, 4, 5)
        cells = halves[..., 0, :] | halves[..., 1, :] << 4
    elif shape.format == "int8":
        cells = values.reshape(b, s, BLOCK_ROWS, 32, 4).transpose(0, 1, 3, 2, 4)
    elif shape.format == "fp8":
        cells = values.reshape(b, s, 4, 4, 32, 2, 2).transpose(0, 1, 4, 2, 5, 3, 6)
    else:
        cells = values.reshape(b, s, BLOCK_ROWS, 64, 2).transpose(0, 1, 3, 2, 4)
    return np.ascontiguousarray(cells).view(np.uint8).reshape(b, s, shape.code_bytes)


def _scale_bytes(shape: PackedShape, scales: Tensor) -> Bytes:
    """scales [rows, groups] -> bytes [B, S, scale_bytes], ordered [group][row]."""
    groups = shape.spans * SPAN_COLS // shape.group
    padding = (0, groups - scales.shape[1], 0, shape.blocks * BLOCK_ROWS - shape.rows)
    padded = torch.nn.functional.pad(scales, padding).numpy()
    grid = padded.reshape(shape.blocks, BLOCK_ROWS, shape.spans, -1).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(grid).view(np.uint8).reshape(shape.blocks, shape.spans, shape.scale_bytes)
