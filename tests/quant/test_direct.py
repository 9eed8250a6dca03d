"""Native passes between rows and streams: they decode as the reference does, and lose no more than the torch search."""

import math

import pytest
import torch

from mimo_cli.quant.direct import any_nan, can_encode, compare, decode_streams
from mimo_cli.quant.direct import encode as encode_stream
from mimo_cli.quant.fp8 import expand_block_scales, quantize_blocks
from mimo_cli.quant.kernels import Kernels, missing_reason
from mimo_cli.quant.mxfp4 import decode, encode
from mimo_cli.quant.packed import FORMATS, GROUPS, PackedShape, decode_packed
from mimo_cli.quant.quantize import pack_stream, quantize

pytestmark = pytest.mark.skipif(missing_reason() is not None, reason="no native kernels")
whole_spans = pytest.mark.skipif(
    missing_reason() is not None or not can_encode(PackedShape("int4", 32, 16, 128)), reason="no AVX-512"
)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(("rows", "cols"), [(16, 128), (37, 250), (128, 384)])
def test_streams_decode_as_the_reference_says(kind: str, rows: int, cols: int) -> None:
    for group in GROUPS[kind]:  # type: ignore[index]
        shape = PackedShape(kind, group, rows, cols, 2)  # type: ignore[arg-type]
        data = pack_stream(shape, [quantize(torch.randn(rows, cols), shape.format, group) for _ in range(2)])
        for found, expected in zip(decode_streams(data, shape), decode_packed(data.numpy(), shape), strict=True):
            assert torch.equal(found, torch.from_numpy(expected))


def _fp8(rows: int, cols: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    weights, scales = quantize_blocks(torch.distributions.StudentT(4.0).sample((rows, cols)) * 0.02)
    return weights, scales, torch.arange(rows) // 128


@whole_spans
@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize("stream", [0, 1])
def test_fp8_goes_to_int4_as_well_as_through_floats(group: int, stream: int) -> None:
    weights, scales, blocks = _fp8(256, 512)
    floats = expand_block_scales(weights, scales, torch.float32)
    shape = PackedShape("int4", group, 256, 512, 2)
    data = torch.zeros(shape.nbytes, dtype=torch.uint8)
    lost = encode_stream(shape, data, stream, weights, scales, blocks)
    again = encode_stream(shape, torch.zeros_like(data), stream, floats)
    decoded = decode_streams(data, shape)[stream]
    assert lost is not None and again is not None
    found = compare(floats, decoded)
    assert lost.squared_error == pytest.approx(found.squared_error, rel=1e-5)  # sums in another order
    assert lost.squared_weights == pytest.approx(found.squared_weights, rel=1e-5)
    assert again.squared_error == pytest.approx(lost.squared_error, rel=1e-3)  # a trial won by a hair is another then
    assert lost.squared_error < 1.01 * quantize(floats, "int4", group).squared_error
    other = decode_streams(data, shape)[1 - stream]
    assert torch.equal(other, torch.full_like(other, -0.0))  # untouched: scales of zero


@whole_spans
@pytest.mark.parametrize("value", [0.0, 1e-30, 1e-8, 3e-5, 1.0, 5e4, 1e6])
def test_extreme_groups_stay_finite(value: float) -> None:
    weights = torch.full((16, 128), value)
    weights[:, ::3] = -value
    shape = PackedShape("int4", 32, 16, 128)
    data = torch.zeros(shape.nbytes, dtype=torch.uint8)
    assert encode_stream(shape, data, 0, weights) is not None
    decoded = decode_streams(data, shape)[0]
    assert bool(torch.isfinite(decoded).all())
    largest = min(value, 8 * 65504.0)  # of the format
    if value >= 3e-5:  # scales below are subnormal in float16, or nothing
        assert float((decoded.abs() - largest).abs().max()) <= 0.126 * largest  # codes end at -8 and 7


@whole_spans
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_no_number_is_found(bad: float) -> None:
    weights = torch.randn(32, 256)
    shape = PackedShape("int4", 32, 32, 256)
    data = torch.zeros(shape.nbytes, dtype=torch.uint8)
    assert encode_stream(shape, data, 0, weights) is not None
    weights[17, 200] = bad
    assert encode_stream(shape, data, 0, weights) is None
    codes, scales, blocks = _fp8(32, 256)
    assert any_nan(codes) is False and encode_stream(shape, data, 0, codes, scales, blocks) is not None
    codes.view(torch.uint8)[31, 255] = 0xFF
    assert any_nan(codes) is True and encode_stream(shape, data, 0, codes, scales, blocks) is None


@pytest.mark.parametrize(("rows", "cols"), [(16, 128), (20, 96), (48, 320)])
def test_nibbles_go_into_a_stream_as_their_codes_do(rows: int, cols: int) -> None:
    nibbles, scales = encode(torch.randn(rows, cols))
    shape, kernels = PackedShape("mxfp4", 32, rows, cols, 2), Kernels("auto", 2)
    data = torch.full((shape.nbytes,), 255, dtype=torch.uint8)
    for stream in range(2):
        kernels.pack_nibbles(shape, data, stream, nibbles, scales)
    for matrix in decode_packed(data.numpy(), shape):
        assert torch.equal(torch.from_numpy(matrix), decode(nibbles, scales, torch.float32))


def test_differences_are_summed_and_a_nan_is_no_difference_of_zero() -> None:
    a = torch.randn(3000)
    b = a.clone()
    b[2999] += 0.5
    found = compare(a, b)
    assert found.squared_error == pytest.approx(0.25, rel=1e-4) and found.largest == pytest.approx(0.5, rel=1e-5)
    assert found.squared_weights == pytest.approx(float(a.double().square().sum()), rel=1e-5)
    b[5] = math.nan
    assert math.isnan(compare(a, b).largest) and math.isnan(compare(a, b).squared_error)


def _stream_and_codes(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weights encoded in one pass, and by codes of their own that are packed afterwards; both decoded."""
    rows, cols = weights.shape
    shape = PackedShape("mxfp4", 32, rows, cols)
    data = torch.zeros(shape.nbytes, dtype=torch.uint8)
    assert encode_stream(shape, data, 0, weights) is not None
    return decode_streams(data, shape)[0], decode_streams(pack_stream(shape, [quantize(weights, "mxfp4", 32)]), shape)[
        0
    ]


@whole_spans
@pytest.mark.parametrize("stream", [0, 1])
def test_fp8_goes_to_mxfp4_as_well_as_through_floats(stream: int) -> None:
    weights, scales, blocks = _fp8(256, 512)
    floats = expand_block_scales(weights, scales, torch.float32)
    shape = PackedShape("mxfp4", 32, 256, 512, 2)
    data = torch.zeros(shape.nbytes, dtype=torch.uint8)
    lost = encode_stream(shape, data, stream, weights, scales, blocks)
    decoded = decode_streams(data, shape)[stream]
    assert lost is not None
    found = compare(floats, decoded)
    assert lost.squared_error == pytest.approx(found.squared_error, rel=1e-5)  # sums in another order
    assert lost.squared_weights == pytest.approx(found.squared_weights, rel=1e-5)
    assert lost.squared_error == pytest.approx(quantize(floats, "mxfp4", 32).squared_error, rel=1e-5)
    again = torch.zeros_like(data)
    assert encode_stream(shape, again, stream, floats) is not None
    assert torch.equal(again, data)


@whole_spans
def test_mxfp4_codes_are_those_of_the_search_by_groups() -> None:
    torch.manual_seed(4)
    magnitudes = 10.0 ** torch.randint(-15, 15, (64, 8)).repeat_interleave(32, dim=1)
    found, expected = _stream_and_codes(torch.randn(64, 256) * magnitudes)
    differing = (found != expected).view(64, 8, 32).any(dim=2)
    assert float(differing.float().mean()) < 0.01  # errors that are equal up to the order of summing them
    signs = torch.where(torch.rand(16, 128) < 0.5, -1.0, 1.0)
    for value in (0.0, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 6.0, 7.0):  # ties among them
        weights = torch.full((16, 128), value) * signs
        weights[:, ::32] = 6.0  # the scale is 1, so that a value is what it is
        found, expected = _stream_and_codes(weights)
        assert torch.equal(found, expected)


@whole_spans
@pytest.mark.parametrize("value", [1e-45, 1e-40, 1e-38, 2.0**-126, 1e-20, 1.0, 1e10, 1e17])
def test_extreme_groups_of_mxfp4_stay_finite(value: float) -> None:
    weights = torch.full((16, 128), value)
    weights[:, ::3] = -value
    found, expected = _stream_and_codes(weights)
    assert torch.equal(found, expected) and bool(torch.isfinite(found).all())


@whole_spans
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_mxfp4_finds_what_is_no_number(bad: float) -> None:
    weights, shape = torch.randn(32, 256), PackedShape("mxfp4", 32, 32, 256)
    weights[17, 200] = bad
    data = torch.zeros(shape.nbytes, dtype=torch.uint8)
    assert encode_stream(shape, data, 0, weights) is None
    codes, scales, blocks = _fp8(32, 256)
    codes.view(torch.uint8)[31, 255] = 0xFF
    assert encode_stream(shape, data, 0, codes, scales, blocks) is None
