"""MXFP4 against the format's definition, and against itself."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mimo_cli.errors import CheckpointError
from mimo_cli.quant.mxfp4 import BLOCK, MAGNITUDES, decode, encode


def random_packed(rows: int, blocks: int, seed: int, scales: tuple[int, int] = (0, 252)) -> tuple[Tensor, Tensor]:
    """Draw every code, and scale bytes up to where 6 x 2^(s - 127) still is a float32."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randint(256, (rows, blocks * BLOCK // 2), generator=generator).to(torch.uint8)
    return weight, torch.randint(scales[0], scales[1] + 1, (rows, blocks), generator=generator).to(torch.uint8)


def defined(weight: Tensor, scale: Tensor) -> list[list[float]]:
    """Apply the definition number by number in Python floats."""
    rows = []
    for codes, scales in zip(weight.tolist(), scale.tolist(), strict=True):
        nibbles = [nibble for byte in codes for nibble in (byte & 15, byte >> 4)]
        values = [(-1 if nibble & 8 else 1) * MAGNITUDES[nibble & 7] for nibble in nibbles]
        rows.append([math.ldexp(value, scales[i // BLOCK] - 127) for i, value in enumerate(values)])
    return rows


@given(rows=st.integers(1, 12), blocks=st.integers(1, 5), seed=st.integers(0, 999))
def test_decoding_follows_the_definition_exactly(rows: int, blocks: int, seed: int) -> None:
    weight, scale = random_packed(rows, blocks, seed)
    assert decode(weight, scale, torch.float32).double().tolist() == defined(weight, scale)


def test_the_low_nibble_is_the_even_input() -> None:
    weight = torch.zeros(1, 16, dtype=torch.uint8)
    weight[0, 0] = 0x2 | (0xF << 4)  # 1.0 and -6.0
    values = decode(weight, torch.full((1, 1), 127, dtype=torch.uint8), torch.float32)[0]
    assert values[:3].tolist() == [1.0, -6.0, 0.0]


@pytest.mark.parametrize(("byte", "factor"), [(0, 2.0**-127), (1, 2.0**-126), (126, 0.5), (127, 1.0), (252, 2.0**125)])
def test_a_scale_byte_is_a_power_of_two_even_below_the_normal_numbers(byte: int, factor: float) -> None:
    weight = torch.full((1, 16), 0x12, dtype=torch.uint8)  # 1.0 and 0.5
    values = decode(weight, torch.full((1, 1), byte, dtype=torch.uint8), torch.float32)[0]
    assert values[:2].tolist() == [factor, 0.5 * factor] and factor > 0


def test_scales_belong_to_32_consecutive_inputs() -> None:
    weight = torch.full((2, 32), 0x22, dtype=torch.uint8)
    values = decode(weight, torch.tensor([[127, 128], [129, 127]], dtype=torch.uint8), torch.float32)
    assert values[:, ::32].tolist() == [[1.0, 2.0], [4.0, 1.0]] and values[0, 31] == 1.0 and values[0, 32] == 2.0


def test_many_slabs_equal_one() -> None:
    weight, scale = random_packed(400, 64, 0)  # 1024 packed bytes a row: 256 rows a slab
    rows = [decode(weight[row : row + 1], scale[row : row + 1], torch.float32) for row in range(400)]
    assert torch.equal(decode(weight, scale, torch.float32), torch.cat(rows))


def test_bfloat16_holds_every_decoded_value() -> None:
    weight, scale = random_packed(4, 4, 0)
    assert torch.equal(decode(weight, scale, torch.bfloat16).float(), decode(weight, scale, torch.float32))


def test_one_changed_scale_changes_its_block_and_nothing_else() -> None:
    weight, scale = torch.full((4, 32), 0x22, dtype=torch.uint8), torch.full((4, 2), 127, dtype=torch.uint8)
    scale[2, 1] += 1
    changed = decode(weight, scale, torch.float32) != 1.0
    assert bool(changed[2, 32:].all()) and int(changed.sum()) == BLOCK


@pytest.mark.parametrize("shape", [(2, 3), (1, 2), (2, 1), (3, 2)])
def test_scales_that_do_not_cover_the_weight_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(CheckpointError, match="do not cover"):
        decode(torch.zeros(2, 32, dtype=torch.uint8), torch.zeros(shape, dtype=torch.uint8), torch.float32)


def test_inputs_that_fill_no_block_are_refused() -> None:
    with pytest.raises(CheckpointError, match="do not cover"):
        decode(torch.zeros(2, 24, dtype=torch.uint8), torch.zeros(2, 1, dtype=torch.uint8), torch.float32)


def test_a_nan_scale_is_refused() -> None:
    weight, scale = random_packed(2, 2, 0)
    scale[1, 1] = 255
    with pytest.raises(CheckpointError, match="NaN"):
        decode(weight, scale, torch.float32)


@given(rows=st.integers(1, 8), blocks=st.integers(1, 4), seed=st.integers(0, 999))
def test_decoded_values_encode_to_the_same_values(rows: int, blocks: int, seed: int) -> None:
    # From 130 up: rescaling a block whose largest code is 0.5 lowers its scale by 3, which byte 0 could not follow.
    values = decode(*random_packed(rows, blocks, seed, (130, 250)), torch.float32)
    assert torch.equal(decode(*encode(values), torch.float32), values)


@given(seed=st.integers(0, 999), exponent=st.integers(-100, 100))
def test_encoding_takes_the_nearest_code_of_a_scale_that_fits(seed: int, exponent: int) -> None:
    values = torch.randn(3, 64, generator=torch.Generator().manual_seed(seed)) * 2.0**exponent
    weight, scale = encode(values)
    factor = torch.exp2(scale.float() - 127).repeat_interleave(BLOCK, 1)
    peaks = (values.abs() / factor).view(3, 2, BLOCK).amax(2)
    assert bool((peaks <= 6).all()) and bool((peaks > 3).all())  # half the scale would not hold the largest magnitude
    grid = torch.tensor([sign * magnitude for sign in (-1, 1) for magnitude in MAGNITUDES])
    nearest = ((values / factor)[..., None] - grid).abs().amin(-1)
    assert torch.equal((decode(weight, scale, torch.float32) / factor - values / factor).abs(), nearest)


@pytest.mark.parametrize(
    ("value", "code"), [(0.25, 0.0), (0.75, 1.0), (1.25, 1.0), (1.75, 2.0), (2.5, 2.0), (3.5, 4.0), (5.0, 4.0)]
)
def test_ties_go_to_the_even_code(value: float, code: float) -> None:
    values = torch.zeros(1, BLOCK)
    values[0, 0], values[0, 1], values[0, 2] = 6.0, value, -value  # 6 fixes the scale at 1
    decoded = decode(*encode(values), torch.float32)[0]
    assert decoded[:3].tolist() == [6.0, code, -code]


def test_zeros_and_numbers_below_the_smallest_scale_encode() -> None:
    assert not bool(decode(*encode(torch.zeros(2, 32)), torch.float32).any())
    tiny = torch.full((1, 32), 2.0**-149)
    assert bool(torch.isfinite(decode(*encode(tiny), torch.float32)).all())


@pytest.mark.parametrize("columns", [1, 31, 48])
def test_a_matrix_of_broken_blocks_is_not_encoded(columns: int) -> None:
    with pytest.raises(CheckpointError, match="multiple of 32"):
        encode(torch.zeros(2, columns))


def test_weights_that_are_not_finite_are_not_encoded() -> None:
    with pytest.raises(CheckpointError, match="not finite"):
        encode(torch.full((1, 32), math.inf))
