"""Packed matrices: the layout that the native kernels read, as sizes and as a decoder in plain numpy.

A matrix [rows, cols] is cut into blocks of 16 rows, and each block into spans of 128 columns that follow one another,
so a block is one linear read. Two matrices of the same shape (gate and up) can share a stream, span by span; `streams`
says how many do. Rows are padded to 16 and columns to 128, with zeros.

    int4, mxfp4, int8   a span is [codes of each stream][scales of each stream]
    fp8                 a block starts with its scales, one float32 per stream and span, padded to 64 bytes
    bf16                a span is [values of each stream]

Inside the codes of a span, r being the row in the block and k the column in the span:

    int4, mxfp4   64-byte lines of 8 columns; byte 4 r + c holds column c (low four bits) and column 4 + c (high)
    int8          64-byte lines of 4 columns; byte 4 r + c holds column c, as value + 128
    fp8           64-byte lines of 4 columns; 16 bytes per 4 rows: columns 0, 1 of each row, then columns 2, 3
    bf16          64-byte lines of 2 columns; 4 bytes per row

int4 codes are value + 8, one float16 scale per row and group of columns; mxfp4 codes are e2m1 with e8m0 scales per 32;
int8 has one float16 scale per row and 128 columns. The scales of a span are ordered [group][row].
"""

import functools
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from mimo_cli.errors import CheckpointError

PackedFormat = Literal["int4", "mxfp4", "int8", "fp8", "bf16"]
FORMATS: tuple[PackedFormat, ...] = ("int4", "mxfp4", "int8", "fp8", "bf16")
GROUPS: dict[PackedFormat, tuple[int, ...]] = {
    "int4": (32, 64, 128),
    "mxfp4": (32,),
    "int8": (128,),
    "fp8": (128,),
    "bf16": (128,),
}
"""Columns that may share a scale, by format."""

BLOCK_ROWS = 16
SPAN_COLS = 128
_CODE_BITS: dict[PackedFormat, int] = {"int4": 4, "mxfp4": 4, "int8": 8, "fp8": 8, "bf16": 16}
_E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class PackedShape:
    """Format and size of one packed matrix (or of two in one stream). All sizes follow from it."""

    format: PackedFormat
    group: int
    rows: int
    cols: int
    streams: int = 1

    def __post_init__(self) -> None:
        if self.format not in FORMATS or self.group not in GROUPS[self.format]:
            raise CheckpointError(f"packed format {self.format!r} with groups of {self.group} is not implemented")
        if min(self.rows, self.cols) < 1 or self.streams not in (1, 2):
            raise CheckpointError(
                f"a packed matrix of {self.rows} x {self.cols} in {self.streams} streams is impossible"
            )

    @property
    def blocks(self) -> int:
        """Blocks of 16 rows."""
        return -(-self.rows // BLOCK_ROWS)

    @property
    def spans(self) -> int:
        """Spans of 128 columns."""
        return -(-self.cols // SPAN_COLS)

    @property
    def code_bytes(self) -> int:
        """Bytes of the codes of one stream in one span."""
        return BLOCK_ROWS * SPAN_COLS * _CODE_BITS[self.format] // 8

    @property
    def scale_bytes(self) -> int:
        """Bytes of the scales of one stream in one span."""
        per_group = {"int4": 2 * BLOCK_ROWS, "int8": 2 * BLOCK_ROWS, "mxfp4": BLOCK_ROWS}.get(self.format, 0)
        return SPAN_COLS // self.group * per_group

    @property
    def head_bytes(self) -> int:
        """Bytes before the first span of a block."""
        return -(-self.streams * self.spans * 4 // 64) * 64 if self.format == "fp8" else 0

    @property
    def span_bytes(self) -> int:
        """Bytes of one span of all streams."""
        return self.streams * (self.code_bytes + self.scale_bytes)

    @property
    def block_bytes(self) -> int:
        """Bytes of one block of 16 rows."""
        return self.head_bytes + self.spans * self.span_bytes

    @functools.cached_property
    def nbytes(self) -> int:
        """Bytes of the whole stream."""
        return self.blocks * self.block_bytes

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per weight, scales and padding included."""
        return 8 * self.nbytes / (self.rows * self.cols * self.streams)


def decode_packed(data: Bytes, shape: PackedShape) -> list[Floats]:
    """Return the matrices of a packed stream as float32 [rows, cols], one per stream. `data` is uint8 [shape.nbytes].

    The reference decoder: it states the layout, and computes where there are no native kernels.
    """
    blocks = data.reshape(shape.blocks, shape.block_bytes)
    spans = blocks[:, shape.head_bytes :].reshape(shape.blocks, shape.spans, shape.span_bytes)
    matrices = []
    for stream in range(shape.streams):
        at = stream * shape.code_bytes
        values = _decode_codes(
            np.ascontiguousarray(spans[:, :, at : at + shape.code_bytes]), shape.format
        )  # [B, S, 16, 128]
        at = shape.streams * shape.code_bytes + stream * shape.scale_bytes
        values *= _scales(blocks, np.ascontiguousarray(spans[:, :, at : at + shape.scale_bytes]), stream, shape)
        rows = values.transpose(0, 2, 1, 3).reshape(shape.blocks * BLOCK_ROWS, shape.spans * SPAN_COLS)
        matrices.append(np.ascontiguousarray(rows[: shape.rows, : shape.cols]))
    return matrices


def _decode_codes(codes: Bytes, kind: PackedFormat) -> Floats:
    """codes [B, S, bytes] -> values without their scales, float32 [B, S, 16, 128]."""
    b, s = codes.shape[:2]
    if kind in ("int4", "mxfp4"):
        lines = codes.reshape(b, s, 16, BLOCK_ROWS, 4)  # line of 8 columns, row, byte
        nibbles = np.stack([lines & 15, lines >> 4], axis=4).reshape(b, s, 16, BLOCK_ROWS, 8)
        by_row = nibbles.transpose(0, 1, 3, 2, 4).reshape(b, s, BLOCK_ROWS, SPAN_COLS)
        return _E2M1[by_row] if kind == "mxfp4" else by_row.astype(np.float32) - 8
    if kind == "int8":
        lines = codes.reshape(b, s, 32, BLOCK_ROWS, 4)
        return lines.transpose(0, 1, 3, 2, 4).reshape(b, s, BLOCK_ROWS, SPAN_COLS).astype(np.float32) - 128
    if kind == "fp8":
        lines = codes.reshape(b, s, 32, 4, 2, 4, 2)  # line of 4 columns, four rows, column pair, row, column
        by_row = np.ascontiguousarray(lines.transpose(0, 1, 3, 5, 2, 4, 6)).reshape(b, s, BLOCK_ROWS, SPAN_COLS)
        return torch.from_numpy(by_row).view(torch.float8_e4m3fn).float().numpy()
    pairs = codes.view(np.uint16).reshape(b, s, 64, BLOCK_ROWS, 2)
    halves = pairs.transpose(0, 1, 3, 2, 4).reshape(b, s, BLOCK_ROWS, SPAN_COLS)
    return (halves.astype(np.uint32) << 16).view(np.float32)


def _scales(blocks: Bytes, stored: Bytes, stream: int, shape: PackedShape) -> Floats:
    """Return what the codes are multiplied by, broadcastable to [B, S, 16, 128]."""
    b, s = stored.shape[:2]
    if shape.format == "bf16":
        return np.ones((1, 1, 1, 1), np.float32)
    if shape.format == "fp8":
        at = stream * shape.spans * 4
        heads = np.ascontiguousarray(blocks[:, at : at + shape.spans * 4]).view(np.float32)  # [B, S]
        return heads[:, :, None, None]
    groups = SPAN_COLS // shape.group
    if shape.format == "mxfp4":
        scales = np.ldexp(np.float32(1), stored.reshape(b, s, groups, BLOCK_ROWS).astype(np.int32) - 127)
    else:
        scales = stored.view(np.float16).reshape(b, s, groups, BLOCK_ROWS)
    return np.repeat(scales.transpose(0, 1, 3, 2).astype(np.float32), shape.group, axis=3)  # [B, S, 16, 128]
