"""Stored matrices: the same floats as before, in whatever order of rows, and damage that has a name."""

import pytest
import torch

from mimo_cli.errors import CheckpointError
from mimo_cli.quant.fp8 import chunked_row_blocks, expand_block_scales, quantize_blocks
from mimo_cli.quant.mxfp4 import decode, encode
from mimo_cli.quant.stored import DAMAGED_HINT, StoredMatrix

VALUES = torch.randn(96, 128, generator=torch.Generator().manual_seed(0))
ORDER = torch.randperm(96, generator=torch.Generator().manual_seed(1))


def test_block_fp8_is_expanded_with_its_row_blocks() -> None:
    row_blocks = chunked_row_blocks(96, 3, 128)
    weight, scales = quantize_blocks(VALUES, row_blocks=row_blocks)
    stored = StoredMatrix("fp8", weight, scales, row_blocks=row_blocks)
    expected = expand_block_scales(weight, scales, torch.float32, row_blocks=row_blocks)
    assert stored.shape == (96, 128) and torch.equal(stored.floats(torch.float32), expected)
    turned = StoredMatrix("fp8", weight, scales, row_blocks=row_blocks, row_order=ORDER)
    assert torch.equal(turned.floats(torch.float32), expected[ORDER])
    assert torch.equal(turned.scale_rows(), row_blocks[ORDER])


def test_mxfp4_is_decoded_and_counts_two_numbers_in_a_byte() -> None:
    weight, scales = encode(VALUES)
    stored = StoredMatrix("mxfp4", weight, scales, row_order=ORDER)
    assert stored.shape == (96, 128)
    assert torch.equal(stored.floats(torch.bfloat16), decode(weight, scales, torch.bfloat16)[ORDER])


@pytest.mark.parametrize("order", [None, ORDER])
def test_plain_floats_are_copied_never_shared(order: torch.Tensor | None) -> None:
    stored = StoredMatrix("plain", VALUES, row_order=order)
    found = stored.floats(torch.float32)
    assert torch.equal(found, VALUES if order is None else VALUES[order])
    assert found.data_ptr() != VALUES.data_ptr()


def test_codes_are_the_stored_bytes_themselves_while_the_order_is_kept() -> None:
    stored = StoredMatrix("plain", VALUES)
    assert stored.codes().data_ptr() == VALUES.data_ptr()


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (StoredMatrix("fp8", *quantize_blocks(VALUES), source="tensor `w`"), None),
        (StoredMatrix("fp8", quantize_blocks(VALUES)[0], torch.ones(2, 1), source="tensor `w`"), r"\[1, 1\] expected"),
        (StoredMatrix("mxfp4", encode(VALUES)[0], torch.zeros(1, 4), source="tensor `w`"), "do not cover"),
        (StoredMatrix("plain", torch.zeros(3, dtype=torch.int32), source="tensor `w`"), "without scales"),
    ],
)
def test_damage_is_told_with_the_name_of_the_tensor(stored: StoredMatrix, message: str | None) -> None:
    if message is None:
        assert stored.floats(torch.float32).shape == (96, 128)
        return
    with pytest.raises(CheckpointError, match=f"tensor `w`: .*{message}") as caught:
        stored.floats(torch.float32)
    assert caught.value.hint == DAMAGED_HINT
