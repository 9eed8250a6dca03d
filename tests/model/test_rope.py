"""Rotary embedding: partial, in rotate-half pairs, relative."""

from dataclasses import replace

import torch

from mimo_cli.model.rope import RotaryTable
from tests.support.tiny_config import tiny_config

ATTENTION = replace(tiny_config().global_attention, head_dim=12, rotary_dim=4, rope_theta=100.0)


def _at(positions: torch.Tensor) -> RotaryTable:
    return RotaryTable.at(positions, ATTENTION)


def test_each_pair_turns_by_its_own_angle() -> None:
    heads = torch.randn(1, 3, 2, 12)
    turned = _at(torch.tensor([0, 1, 50])).rotate(heads)
    for t, position in enumerate([0, 1, 50]):
        for j in range(2):  # pairs (j, j + 2): halves of the four rotated dimensions, not neighbours
            angle = torch.tensor(position * 100.0 ** (-2 * j / 4))
            a, b = heads[0, t, :, j], heads[0, t, :, j + 2]
            torch.testing.assert_close(turned[0, t, :, j], a * angle.cos() - b * angle.sin())
            torch.testing.assert_close(turned[0, t, :, j + 2], b * angle.cos() + a * angle.sin())


def test_dimensions_beyond_the_rotary_ones_pass_through() -> None:
    heads = torch.randn(2, 3, 2, 12)
    assert torch.equal(_at(torch.tensor([5, 6, 7])).rotate(heads)[..., 4:], heads[..., 4:])


def test_position_zero_changes_nothing() -> None:
    heads = torch.randn(1, 1, 2, 12)
    assert torch.equal(_at(torch.tensor([0])).rotate(heads), heads)


def test_products_depend_on_the_distance_alone() -> None:
    query, key = torch.randn(1, 1, 1, 12), torch.randn(1, 1, 1, 12)
    products = [
        (_at(torch.tensor([p])).rotate(query) * _at(torch.tensor([p - 9])).rotate(key)).sum() for p in (9, 100, 1000)
    ]
    # Angles reach 1000 in float32, whose last digit there is 6e-5.
    torch.testing.assert_close(products[0], products[1], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(products[0], products[2], rtol=1e-3, atol=1e-3)


def test_a_batch_may_have_positions_of_its_own() -> None:
    heads = torch.randn(2, 3, 2, 12)
    positions = torch.tensor([[0, 1, 2], [7, 8, 9]])
    for b in range(2):
        alone = _at(positions[b]).rotate(heads[b : b + 1])
        assert torch.equal(_at(positions).rotate(heads)[b : b + 1], alone)


def test_bfloat16_heads_are_turned_by_float32_angles() -> None:
    heads = torch.randn(1, 1, 2, 12).bfloat16()
    table = _at(torch.tensor([100_000]))
    assert table.cos.dtype == torch.float32
    assert torch.equal(table.rotate(heads), table.rotate(heads.float()).bfloat16())


def test_the_released_rotary_width_is_64_of_192() -> None:
    config = tiny_config(head_dim=192, partial_rotary_factor=0.334)
    assert config.global_attention.rotary_dim == 64
    assert RotaryTable.at(torch.arange(3), config.global_attention).cos.shape == (3, 1, 32)
