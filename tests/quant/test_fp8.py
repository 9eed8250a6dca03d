"""Block FP8 against plain loops, torch's own conversion, and itself."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mimo_cli.errors import CheckpointError
from mimo_cli.quant.fp8 import (
    FP8_MAX,
    chunked_row_blocks,
    expand_block_scales,
    plain_row_blocks,
    quantize_blocks,
)

FINITE_CODES = torch.tensor([code for code in range(256) if code & 0x7F != 0x7F], dtype=torch.uint8)


def random_weight(rows: int, columns: int, seed: int) -> Tensor:
    """Draw every finite code with equal chance."""
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(FINITE_CODES), (rows, columns), generator=generator)
    return FINITE_CODES[picks].view(torch.float8_e4m3fn)


def random_scales(rows: int, columns: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows, columns, generator=generator) * torch.logspace(-9, 3, columns)


def looped(weight: Tensor, scales: Tensor, row_blocks: Tensor, block_columns: int) -> Tensor:
    """Multiply element by element."""
    result = weight.to(torch.float32)
    for row in range(weight.shape[0]):
        for column in range(weight.shape[1]):
            result[row, column] *= scales[row_blocks[row], column // block_columns]
    return result


def test_every_finite_code_has_its_value() -> None:
    weight = FINITE_CODES.view(torch.float8_e4m3fn)[None]
    ones = torch.ones(1, 2)
    assert torch.equal(expand_block_scales(weight, ones, torch.float32), weight.to(torch.float32))
    assert expand_block_scales(weight, ones, torch.float32).abs().max() == FP8_MAX


@given(rows=st.integers(1, 40), columns=st.integers(1, 40), block=st.tuples(st.integers(1, 17), st.integers(1, 17)))
def test_ragged_edge_blocks_equal_plain_loops(rows: int, columns: int, block: tuple[int, int]) -> None:
    weight = random_weight(rows, columns, rows * 41 + columns)
    scales = random_scales(-(-rows // block[0]), -(-columns // block[1]), columns)
    expected = looped(weight, scales, torch.arange(rows) // block[0], block[1])
    assert torch.equal(expand_block_scales(weight, scales, torch.float32, block), expected)


@given(
    chunks=st.integers(1, 5), chunk_rows=st.integers(1, 20), columns=st.integers(1, 24), block_rows=st.integers(1, 9)
)
def test_each_chunk_restarts_its_grid(chunks: int, chunk_rows: int, columns: int, block_rows: int) -> None:
    rows = chunks * chunk_rows
    weight = random_weight(rows, columns, rows)
    scales = random_scales(chunks * math.ceil(chunk_rows / block_rows), math.ceil(columns / 8), rows)
    whole = expand_block_scales(
        weight, scales, torch.float32, (block_rows, 8), chunked_row_blocks(rows, chunks, block_rows)
    )
    parts = zip(weight.split(chunk_rows), scales.split(math.ceil(chunk_rows / block_rows)), strict=True)
    alone = [expand_block_scales(part, grid, torch.float32, (block_rows, 8)) for part, grid in parts]
    assert torch.equal(whole, torch.cat(alone))


def test_the_released_global_grid_has_108_rows_not_106() -> None:
    row_blocks = chunked_row_blocks(13568, 4, 128)
    assert int(row_blocks.max()) + 1 == 108 and int(plain_row_blocks(13568, 128).max()) + 1 == 106
    assert torch.bincount(row_blocks)[[0, 26, 27, 53, 107]].tolist() == [128, 64, 128, 64, 64]


def test_sliding_grids_are_contiguous_either_way() -> None:
    assert torch.equal(chunked_row_blocks(14848, 4, 128), plain_row_blocks(14848, 128))


@pytest.mark.parametrize("columns", [8, 128, 129, 136, 256, 4096])
def test_many_slabs_equal_one(columns: int) -> None:
    """4096 columns take 128 rows per slab: 300 rows end in a short third one."""
    weight = random_weight(300, columns, 1)
    scales = random_scales(3, -(-columns // 128), 2)
    expanded = expand_block_scales(weight, scales, torch.float32)
    by_hand = weight.to(torch.float32) * scales.repeat_interleave(128, 0)[:300].repeat_interleave(128, 1)[:, :columns]
    assert torch.equal(expanded, by_hand)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_round_the_float32_product_once(dtype: torch.dtype) -> None:
    weight, scales = random_weight(130, 130, 3), random_scales(2, 2, 4) / 1e3
    in_float32 = expand_block_scales(weight, scales, torch.float32)
    assert torch.equal(expand_block_scales(weight, scales, dtype), in_float32.to(dtype))


def test_rows_may_be_taken_in_any_order() -> None:
    weight, scales = random_weight(20, 8, 5), random_scales(4, 1, 6)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(7))
    row_blocks = plain_row_blocks(20, 5)
    expected = expand_block_scales(weight, scales, torch.float32, (5, 8))[order]
    codes = weight.view(torch.uint8)[order].view(torch.float8_e4m3fn)
    assert torch.equal(expand_block_scales(codes, scales, torch.float32, (5, 8), row_blocks[order]), expected)


def test_one_changed_scale_changes_its_block_and_nothing_else() -> None:
    weight, scales = torch.ones(256, 256).to(torch.float8_e4m3fn), torch.ones(2, 2)
    scales[1, 0] = 2.0
    changed = expand_block_scales(weight, scales, torch.float32) != 1.0
    assert bool(changed[128:, :128].all()) and int(changed.sum()) == 128 * 128


@pytest.mark.parametrize("grid", [(2, 2), (3, 1), (3, 3), (1, 2), (4, 2)])
def test_a_grid_that_does_not_cover_the_weight_is_refused(grid: tuple[int, int]) -> None:
    with pytest.raises(CheckpointError, match=r"\[3, 2\] expected"):
        expand_block_scales(random_weight(300, 200, 0), torch.ones(grid), torch.float32)


@pytest.mark.parametrize("columns", [8, 9, 128])
@pytest.mark.parametrize("code", [0x7F, 0xFF])
def test_a_nan_weight_is_refused(code: int, columns: int) -> None:
    codes = torch.zeros(4, columns, dtype=torch.uint8)
    codes[3, columns - 1] = code
    with pytest.raises(CheckpointError, match="a weight is NaN"):
        expand_block_scales(codes.view(torch.float8_e4m3fn), torch.ones(1, 1), torch.float32)


@pytest.mark.parametrize("scale", [math.nan, math.inf, -math.inf, 3e38])
def test_a_scale_that_is_not_finite_is_refused(scale: float) -> None:
    with pytest.raises(CheckpointError, match="a block scale is"):
        expand_block_scales(random_weight(2, 2, 0), torch.full((1, 1), scale), torch.float32)


@given(rows=st.integers(1, 40), columns=st.integers(1, 40), block=st.tuples(st.integers(1, 17), st.integers(1, 17)))
def test_quantizing_errs_by_at_most_half_a_step(rows: int, columns: int, block: tuple[int, int]) -> None:
    """e4m3 keeps 3 mantissa bits: half a step is 1/16 of the value, or 2^-10 scales below the normal numbers."""
    values = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows + columns))
    weight, scales = quantize_blocks(values, block)
    restored = expand_block_scales(weight, scales, torch.float32, block)
    per_weight = scales.repeat_interleave(block[0], 0)[:rows].repeat_interleave(block[1], 1)[:, :columns]
    slack = 1 + 1e-6  # the division and the product round in float32
    assert bool(((restored - values).abs() <= slack * torch.maximum(values.abs() / 16, per_weight / 1024)).all())
    assert tuple(scales.shape) == (-(-rows // block[0]), -(-columns // block[1]))


def test_the_scale_is_the_largest_magnitude_over_448() -> None:
    values = torch.zeros(4, 4)
    values[0, 0], values[1, 3], values[3, 1] = -4.48, 0.5, 896.0
    _, scales = quantize_blocks(values, (2, 2))
    expected = torch.tensor([[4.48, 0.5], [896.0, 448.0]]) / FP8_MAX  # a block of zeros gets scale 1
    assert torch.equal(scales, expected)


def test_quantized_values_quantize_to_themselves() -> None:
    values = torch.randn(300, 200, generator=torch.Generator().manual_seed(0))
    weight, scales = quantize_blocks(values)
    again, scales_again = quantize_blocks(expand_block_scales(weight, scales, torch.float32))
    assert torch.allclose(scales, scales_again, rtol=1e-6)
    assert torch.equal(weight.view(torch.uint8), again.view(torch.uint8))


def test_chunks_are_quantized_apart() -> None:
    values = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    whole, scales = quantize_blocks(values, (4, 4), chunked_row_blocks(12, 2, 4))
    for part in range(2):
        alone, grid = quantize_blocks(values[6 * part : 6 * part + 6], (4, 4))
        assert torch.equal(whole[6 * part : 6 * part + 6].view(torch.uint8), alone.view(torch.uint8))
        assert torch.equal(scales[2 * part : 2 * part + 2], grid)


def test_tiny_and_zero_weights_survive_quantizing() -> None:
    values = torch.full((2, 2), 1e-45)
    weight, scales = quantize_blocks(values)
    assert bool(torch.isfinite(expand_block_scales(weight, scales, torch.float32)).all())
    weight, scales = quantize_blocks(torch.zeros(3, 3))
    assert float(scales) == 1.0 and not bool(expand_block_scales(weight, scales, torch.float32).any())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_not_quantized(value: float) -> None:
    with pytest.raises(CheckpointError, match="not finite"):
        quantize_blocks(torch.tensor([[1.0, value]]))
