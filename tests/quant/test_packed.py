"""The packed layout: sizes follow from the shape, and the reference decoder reads what the native packer writes."""

import numpy as np
import pytest
import torch

from mimo_cli.errors import CheckpointError
from mimo_cli.quant.kernels import Kernels, missing_reason
from mimo_cli.quant.packed import PackedFormat, PackedShape, decode_packed
from tests.support.packed_weights import KINDS, packed, random_matrix

needs_kernels = pytest.mark.skipif(missing_reason() is not None, reason=f"{missing_reason()}")
SHAPES = [(16, 128), (1, 1), (17, 129), (48, 256), (33, 200), (100, 33)]


@needs_kernels
@pytest.mark.parametrize(("rows", "cols"), SHAPES)
@pytest.mark.parametrize(("kind", "group"), KINDS)
def test_the_reference_decoder_reads_what_the_native_packer_writes(
    kind: PackedFormat, group: int, rows: int, cols: int
) -> None:
    kernels = Kernels("auto", 1)
    for streams in (1, 2):
        shape = PackedShape(kind, group, rows, cols, streams)
        matrices = [random_matrix(kind, group, rows, cols, seed) for seed in range(streams)]
        decoded = decode_packed(packed(kernels, shape, *matrices).numpy(), shape)
        for values, matrix in zip(decoded, matrices, strict=True):
            assert np.array_equal(values, matrix.weights.astype(np.float32))  # the product of code and scale is exact


@needs_kernels
@pytest.mark.parametrize(("kind", "group"), KINDS)
def test_the_packer_writes_each_byte_of_a_stream_but_the_end_of_a_head(kind: PackedFormat, group: int) -> None:
    kernels, shape = Kernels("auto", 1), PackedShape(kind, group, 40, 300, 2)
    matrices = [random_matrix(kind, group, 40, 300, seed) for seed in range(2)]
    streams = []
    for fill in (0, 255):
        data = torch.full((shape.nbytes,), fill, dtype=torch.uint8)
        for stream, matrix in enumerate(matrices):
            kernels.pack(shape, data, stream, matrix.codes, matrix.scales)
        streams.append(data.view(shape.blocks, shape.block_bytes))
    used = np.ones(shape.block_bytes, bool)
    if kind == "fp8":
        used[shape.streams * shape.spans * 4 : shape.head_bytes] = False
    assert torch.equal(streams[0][:, used], streams[1][:, used])


@pytest.mark.parametrize(
    ("kind", "group", "bits"), [("int4", 32, 4.5), ("int4", 64, 4.25), ("int4", 128, 4.125), ("mxfp4", 32, 4.25)]
)
def test_whole_blocks_cost_the_bits_of_codes_and_scales(kind: PackedFormat, group: int, bits: float) -> None:
    assert PackedShape(kind, group, 2048, 4096, 2).bits_per_weight == bits


def test_padding_counts_as_stored() -> None:
    assert PackedShape("int8", 128, 1, 1).nbytes == 16 * 128 + 32
    assert PackedShape("fp8", 128, 17, 129).nbytes == 2 * (64 + 2 * 2048)


@pytest.mark.parametrize(
    ("kind", "group", "rows", "cols", "streams"),
    [
        ("int4", 16, 16, 128, 1),
        ("mxfp4", 64, 16, 128, 1),
        ("fp8", 32, 16, 128, 1),
        ("int4", 32, 0, 128, 1),
        ("int4", 32, 16, 0, 1),
    ],
)
def test_impossible_shapes_are_refused(kind: PackedFormat, group: int, rows: int, cols: int, streams: int) -> None:
    with pytest.raises(CheckpointError):
        PackedShape(kind, group, rows, cols, streams)
