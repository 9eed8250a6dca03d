"""The layout of a record as numbers: what a kernel reads by them is what the packed decoder reads."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mimo_cli.quant.packed import GROUPS, PackedFormat, PackedShape, decode_packed
from mimo_cli.quant.slot_layout import MatrixLayout, slot_layout

KINDS = [(kind, group) for kind, groups in GROUPS.items() for group in groups]
HIDDEN, WIDTH = 256 + 64, 32 + 8


def shapes(kind: PackedFormat, group: int) -> tuple[PackedShape, PackedShape]:
    return PackedShape(kind, group, WIDTH, HIDDEN, 2), PackedShape(kind, group, HIDDEN, WIDTH)


def random_record(record_bytes: int) -> NDArray[np.uint8]:
    """Bytes without NaN in any format: no byte is 127 or 255, no high half of a float16 or bfloat16 is."""
    return np.random.default_rng(7).integers(0, 0x60, record_bytes, dtype=np.uint8)


def value_at(record: NDArray[np.uint8], matrix: MatrixLayout, kind: str, group: int, row: int, col: int) -> float:
    """Read one weight by the numbers of the layout and the order of codes that packed.py states."""
    block, r, span, k = row // 16, row % 16, col // 128, col % 128
    codes = record[matrix.codes_offset + block * matrix.block_bytes + span * matrix.span_bytes :][: matrix.code_bytes]
    at = matrix.scales_offset + block * matrix.block_bytes + span * matrix.scales_stride
    scales = record[at : at + matrix.scale_bytes]
    if kind in ("int4", "mxfp4"):
        byte = int(codes[64 * (k // 8) + 4 * r + k % 4])
        nibble = byte >> 4 if k % 8 >= 4 else byte & 15
        place = 16 * (k // group) + r
        if kind == "int4":
            return (nibble - 8) * float(scales.view(np.float16)[place])
        magnitude = (0, 0.5, 1, 1.5, 2, 3, 4, 6)[nibble & 7]
        return (-magnitude if nibble & 8 else magnitude) * 2.0 ** (int(scales[place]) - 127)
    if kind == "int8":
        return (int(codes[64 * (k // 4) + 4 * r + k % 4]) - 128) * float(scales.view(np.float16)[r])
    if kind == "fp8":
        code = codes[64 * (k // 4) + 16 * (r // 4) + 8 * (k % 4 // 2) + 2 * (r % 4) + k % 2]
        number = torch.tensor([int(code)], dtype=torch.uint8).view(torch.float8_e4m3fn).float().item()
        return number * float(scales.view(np.float32)[0])
    pair = codes[64 * (k // 2) + 4 * r + 2 * (k % 2) :][:2]
    return torch.from_numpy(pair.copy()).view(torch.bfloat16).float().item()


@pytest.mark.parametrize(("kind", "group"), KINDS)
def test_the_numbers_lead_to_the_weights_that_the_decoder_gives(kind: PackedFormat, group: int) -> None:
    up_shape, down_shape = shapes(kind, group)
    layout = slot_layout(up_shape, down_shape)
    record = random_record(layout.record_bytes)
    gate, up = decode_packed(record[: up_shape.nbytes], up_shape)
    (down,) = decode_packed(record[up_shape.nbytes :], down_shape)
    rng = np.random.default_rng(3)
    for matrix, expected in ((layout.gate, gate), (layout.up, up), (layout.down, down)):
        assert (matrix.rows, matrix.cols) == expected.shape
        corners = [(0, 0), (matrix.rows - 1, matrix.cols - 1), (matrix.rows - 1, 0), (0, matrix.cols - 1)]
        inside = [(int(rng.integers(matrix.rows)), int(rng.integers(matrix.cols))) for _ in range(60)]
        for row, col in corners + inside:
            assert np.float32(value_at(record, matrix, kind, group, row, col)) == expected[row, col], (row, col)


@pytest.mark.parametrize(("kind", "group"), KINDS)
def test_every_byte_of_a_record_belongs_to_one_matrix_or_is_padding(kind: PackedFormat, group: int) -> None:
    layout = slot_layout(*shapes(kind, group))
    owners = np.zeros(layout.record_bytes, np.int64)
    for matrix in (layout.gate, layout.up, layout.down):
        for block in range(matrix.blocks):
            for span in range(matrix.spans):
                codes = matrix.codes_offset + block * matrix.block_bytes + span * matrix.span_bytes
                scales = matrix.scales_offset + block * matrix.block_bytes + span * matrix.scales_stride
                owners[codes : codes + matrix.code_bytes] += 1
                owners[scales : scales + matrix.scale_bytes] += 1
    assert owners.max() == 1
    assert (owners == 0).sum() == (0 if kind != "fp8" else padding_of_heads(*shapes(kind, group)))


def padding_of_heads(*both: PackedShape) -> int:
    return sum(shape.blocks * (shape.head_bytes - 4 * shape.streams * shape.spans) for shape in both)


def test_shapes_of_different_experts_are_refused() -> None:
    up, down = shapes("int4", 32)
    with pytest.raises(ValueError, match="one expert"):
        slot_layout(up, PackedShape("mxfp4", 32, HIDDEN, WIDTH))
    with pytest.raises(ValueError, match="one expert"):
        slot_layout(down, down)
    with pytest.raises(ValueError, match="does not take"):
        slot_layout(up, PackedShape("int4", 32, HIDDEN, WIDTH + 16))
    with pytest.raises(ValueError, match="no stream"):
        MatrixLayout.within(down, 1, 0)
