"""NF4 by bitsandbytes as a row of comparison: near the weight, and never nearer than its sixteen levels allow."""

import torch

from mimo_cli.quant.nf4 import BLOCK, round_trip


def test_a_matrix_comes_back_with_at_most_sixteen_levels_per_block() -> None:
    weight = torch.randn(8, 4 * BLOCK, generator=torch.Generator().manual_seed(0))
    decoded = round_trip(weight)
    assert decoded.shape == weight.shape and decoded.dtype == torch.float32
    assert all(len(block.unique()) <= 16 for block in decoded.view(-1, BLOCK))
    relative = float((decoded - weight).norm() / weight.norm())
    assert 0.05 < relative < 0.12  # normal floats of 4 bits lose 9 % of a normal weight


def test_the_largest_weight_of_a_block_is_kept() -> None:
    weight = torch.linspace(-1, 0.9, BLOCK).view(1, -1)
    assert float(round_trip(weight).min()) == -1
