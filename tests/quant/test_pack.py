"""Packing: the stream holds the stored numbers exactly, and what it could not hold is left alone."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from mimo_cli.errors import CheckpointError
from mimo_cli.quant.fp8 import chunked_row_blocks, quantize_blocks
from mimo_cli.quant.mxfp4 import encode
from mimo_cli.quant.pack import pack, packed_shape
from mimo_cli.quant.packed import decode_packed
from mimo_cli.quant.stored import StoredMatrix
from tests.support.checkpoint_files import open_golden
from tests.support.kernels import kernels, needs_kernels

FLOAT32, BFLOAT16 = torch.float32, torch.bfloat16


def random_matrix(rows: int, cols: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, cols, generator=torch.Generator().manual_seed(seed))


def fp8(rows: int, cols: int, chunks: int = 1, seed: int = 0, block: tuple[int, int] = (128, 128)) -> StoredMatrix:
    """Return a random matrix in block FP8, quantised in equal chunks of rows."""
    row_blocks = chunked_row_blocks(rows, chunks, block[0])
    weight, scales = quantize_blocks(random_matrix(rows, cols, seed), block, row_blocks)
    return StoredMatrix("fp8", weight, scales, block, row_blocks, source="matrix `w`")


def mxfp4(rows: int, cols: int, seed: int = 0) -> StoredMatrix:
    return StoredMatrix("mxfp4", *encode(random_matrix(rows, cols, seed)), source="matrix `w`")


def plain(rows: int, cols: int, dtype: torch.dtype = BFLOAT16, seed: int = 0) -> StoredMatrix:
    return StoredMatrix("plain", random_matrix(rows, cols, seed).to(dtype))


def floats(parts: Sequence[StoredMatrix]) -> Tensor:
    return torch.cat([part.floats(FLOAT32) for part in parts])


def decoded(parts: Sequence[StoredMatrix]) -> Tensor:
    shape = packed_shape(parts, FLOAT32)
    assert shape is not None
    return torch.from_numpy(decode_packed(pack(kernels(), shape, parts).numpy(), shape)[0])


MATRICES = [
    [fp8(256, 384)],
    [fp8(40, 130)],
    [fp8(208, 128, chunks=1)],
    [fp8(2 * 176, 256, chunks=2)],  # the grid restarts in the middle of a block of 128 rows
    [fp8(128, 256, block=(64, 256))],
    [mxfp4(48, 256)],
    [mxfp4(7, 96)],
    [plain(33, 200)],
    [fp8(192, 128, seed=1), fp8(192, 128, chunks=4, seed=2), fp8(128, 128, seed=3)],  # q, k with chunks of 48, v
    [mxfp4(20, 64, seed=1), mxfp4(5, 64, seed=2)],
    [plain(10, 64, seed=1), plain(3, 64, seed=2)],
]


@needs_kernels
@pytest.mark.parametrize("parts", MATRICES)
def test_a_stream_holds_the_stored_numbers_exactly(parts: list[StoredMatrix]) -> None:
    assert torch.equal(decoded(parts), floats(parts))


@needs_kernels
def test_rows_are_put_in_order() -> None:
    stored = fp8(2 * 128, 128, chunks=2)
    order = torch.arange(256).view(2, 8, 16).transpose(0, 1).flatten()
    turned = StoredMatrix("fp8", stored.weight, stored.scales, stored.block, stored.row_blocks, order)
    assert torch.equal(decoded([turned]), stored.floats(FLOAT32)[order])


@needs_kernels
@pytest.mark.parametrize("layer", [0, 1])
def test_the_fused_projection_of_a_release_is_packed_in_plain_order(layer: int) -> None:
    config, reader = open_golden("text")
    prefix, attention = f"model.layers.{layer}.self_attn", config.attention(layer)
    assert torch.equal(decoded(reader.stored_qkv(prefix, attention)), reader.qkv(prefix, attention, FLOAT32))


@needs_kernels
def test_gate_and_up_share_a_stream() -> None:
    gate, up = mxfp4(40, 160, seed=1), mxfp4(40, 160, seed=2)
    shape = packed_shape([gate], FLOAT32, streams=2)
    assert shape is not None
    data = pack(kernels(), shape, [gate])
    pack(kernels(), shape, [up], data, stream=1)
    for found, stored in zip(decode_packed(data.numpy(), shape), (gate, up), strict=True):
        assert torch.equal(torch.from_numpy(found), stored.floats(FLOAT32))


@pytest.mark.parametrize(
    "parts",
    [
        [fp8(256, 256, block=(24, 128))],  # 16 rows of a block with two scales
        [fp8(256, 256, block=(128, 64))],
        [fp8(128, 128), plain(128, 128)],
        [plain(16, 128), plain(16, 128, FLOAT32)],
        [plain(16, 128, FLOAT32)],
        [plain(16, 128, torch.float16)],
        [StoredMatrix("plain", torch.zeros(16, dtype=BFLOAT16))],
    ],
)
def test_what_a_stream_cannot_hold_has_no_packed_shape(parts: list[StoredMatrix]) -> None:
    assert packed_shape(parts, FLOAT32) is None


@needs_kernels
def test_floats_are_rounded_only_for_a_network_that_rounds_them_anyway() -> None:
    stored = plain(16, 128, FLOAT32)
    shape = packed_shape([stored], BFLOAT16)
    assert shape is not None and shape.format == "bf16"
    found = decode_packed(pack(kernels(), shape, [stored]).numpy(), shape)[0]
    assert torch.equal(torch.from_numpy(found), stored.weight.to(BFLOAT16).float())


def damaged(kind: str) -> StoredMatrix:
    """Return a matrix with one number that is none, or with scales that do not cover it."""
    stored = mxfp4(32, 64) if kind.startswith("mxfp4") else fp8(256, 128)
    weight, scales = stored.weight.clone(), stored.scales
    assert scales is not None
    if kind == "fp8 code":
        weight.view(torch.uint8)[200, 77] = 0xFF
    elif kind == "fp8 scale":
        scales[1, 0] = torch.inf
    elif kind == "mxfp4 scale":
        scales[3, 1] = 255
    else:
        scales = scales[:-1]
    return StoredMatrix(stored.kind, weight, scales, stored.block, stored.row_blocks, source="matrix `w`")


@needs_kernels
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("fp8 code", "a weight is NaN"),
        ("fp8 scale", "a block scale is not finite"),
        ("mxfp4 scale", "scale byte is NaN"),
        ("fp8 grid", r"the scale grid is \[1, 1\], \[2, 1\] expected"),
        ("mxfp4 grid", "do not cover"),
    ],
)
def test_damage_is_refused_by_name(kind: str, message: str) -> None:
    stored = damaged(kind)
    shape = packed_shape([stored], FLOAT32)
    assert shape is not None
    with pytest.raises(CheckpointError, match=f"matrix `w`: .*{message}") as caught:
        pack(kernels(), shape, [stored])
    assert caught.value.hint
