"""Codes and scales: the native and the torch way agree, lose what they say, and refuse what cannot be stored."""

import numpy as np
import pytest
import torch

from mimo_cli.errors import CheckpointError
from mimo_cli.quant import mxfp4, quantize
from mimo_cli.quant.fp8 import chunked_row_blocks, expand_block_scales, plain_row_blocks, quantize_blocks
from mimo_cli.quant.packed import GROUPS, PackedShape, decode_packed

KINDS = [(kind, group) for kind, groups in GROUPS.items() for group in groups]


def _weights(rows: int = 50, cols: int = 320, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, cols, generator=generator) * torch.rand(rows, 1, generator=generator)


def _decoded(weights: torch.Tensor, kind: str, group: int) -> tuple[torch.Tensor, float]:
    codes = quantize.quantize(weights, kind, group)
    shape = PackedShape(kind, group, *weights.shape)
    data = quantize.pack_stream(shape, [codes])
    return torch.from_numpy(decode_packed(data.numpy(), shape)[0]), codes.squared_error


@pytest.mark.parametrize(("kind", "group"), KINDS)
def test_the_stated_error_is_that_of_the_decoded_stream(kind: str, group: int) -> None:
    weights = _weights()
    decoded, stated = _decoded(weights, kind, group)
    found = float((decoded - weights).double().square().sum())
    assert found == pytest.approx(stated, rel=1e-5)  # the native sum is kept in float32 per group
    assert 0 < found < 0.02 * float(weights.double().square().sum())


@pytest.mark.parametrize(("kind", "group"), KINDS)
def test_without_native_kernels_the_layout_is_the_same(kind: str, group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = _weights(33, 416)
    native, native_error = _decoded(weights, kind, group)
    monkeypatch.setenv("MIMO_ISA", "none")
    plain, plain_error = _decoded(weights, kind, group)
    if kind == "mxfp4":  # torch tries one exponent, the native search two
        assert native_error <= plain_error < 1.3 * native_error
    else:
        assert torch.equal(native, plain)


def test_smaller_groups_lose_less() -> None:
    errors = [quantize.quantize(_weights(64, 512), "int4", group).squared_error for group in (32, 64, 128)]
    assert errors == sorted(errors)


def test_the_scale_search_beats_the_plain_largest_magnitude() -> None:
    weights = _weights(64, 512)
    groups = weights.view(64, -1, 32)
    scale = groups.abs().amax(dim=2, keepdim=True) / 7
    plain = float(((groups / scale).round() * scale - groups).double().square().sum())
    assert quantize.quantize(weights, "int4", 32).squared_error < 0.85 * plain


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", ["int4", "int8", "mxfp4", "fp8", "bf16"])
def test_a_weight_that_is_not_finite_is_refused(kind: str, bad: float) -> None:
    weights = _weights()
    weights[7, 9] = bad
    with pytest.raises(CheckpointError, match="not finite"):
        quantize.quantize(weights, kind, GROUPS[kind][0])


@pytest.mark.parametrize("isa", ["auto", "none"])
def test_fp8_expands_as_the_reader_does(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIMO_ISA", isa)
    row_blocks = chunked_row_blocks(544, 2, 128)  # the grid restarts at row 272
    stored, scales = quantize_blocks(_weights(544, 200), row_blocks=row_blocks)
    expected = expand_block_scales(stored, scales, torch.float32, row_blocks=row_blocks)
    assert torch.equal(quantize.expand_fp8(stored, scales, row_blocks), expected)
    part = quantize.expand_fp8(stored[256:400], scales, row_blocks[256:400])
    assert torch.equal(part, expected[256:400])


def test_scales_that_do_not_cover_the_codes_are_refused() -> None:
    stored, scales = quantize_blocks(_weights(256, 256))
    with pytest.raises(CheckpointError, match="does not cover"):
        quantize.expand_fp8(stored, scales[:1], plain_row_blocks(256, 128))
    with pytest.raises(CheckpointError, match="does not cover"):
        quantize.expand_fp8(stored, scales[:, :1], plain_row_blocks(256, 128))


def test_rows_that_do_not_share_a_scale_cannot_be_packed() -> None:
    row_blocks = plain_row_blocks(64, 128)
    row_blocks[40:] = 1
    with pytest.raises(CheckpointError, match="several scales"):
        quantize.spread_block_scales(torch.ones(2, 1), row_blocks)


def test_released_mxfp4_bytes_are_packed_without_a_change() -> None:
    generator = torch.Generator().manual_seed(1)
    packed = torch.randint(0, 256, (40, 96), dtype=torch.uint8, generator=generator)
    scales = torch.randint(60, 200, (40, 6), dtype=torch.uint8, generator=generator)
    shape = PackedShape("mxfp4", 32, 40, 192)
    data = quantize.pack_stream(shape, [quantize.Codes(quantize.unpack_nibbles(packed), scales)])
    decoded = decode_packed(data.numpy(), shape)[0]
    expected = mxfp4.decode(packed, scales, torch.float32).numpy()
    assert np.array_equal(decoded.view(np.uint32), expected.view(np.uint32))  # also the signs of zeros


def test_the_same_weights_give_the_same_bytes() -> None:
    shape = PackedShape("fp8", 128, 50, 320, 2)
    codes = quantize.quantize(_weights(), "fp8", 128)
    first, second = torch.full((shape.nbytes,), 1, dtype=torch.uint8), torch.full((shape.nbytes,), 2, dtype=torch.uint8)
    assert torch.equal(
        quantize.pack_stream(shape, [codes, codes], first), quantize.pack_stream(shape, [codes, codes], second)
    )


def test_wrong_arguments_are_our_own_mistakes() -> None:
    with pytest.raises(ValueError, match="float32 weights"):
        quantize.quantize(torch.ones(4, 4, dtype=torch.bfloat16), "int4", 32)
    with pytest.raises(ValueError, match="2 matrices"):
        quantize.pack_stream(PackedShape("int4", 32, 4, 32, 2), [quantize.quantize(torch.ones(4, 32), "int4", 32)])
