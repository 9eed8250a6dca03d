"""Positions, angles and the column order of patches."""

import numpy as np
import torch

from mimo_cli.model.vision_rope import column_order, column_unit_order, patch_positions, rotary_angles, rotate
from tests.support.vision_golden import expected


def test_angles_equal_the_reference() -> None:
    grid = [tuple(expected()["image_grid_thw"][0].tolist())]
    angles = rotary_angles(patch_positions(grid, 2), 64, 10000.0)
    # Powers of 10000 may differ in the last bit between libraries; the largest angle is 17.
    assert np.abs(angles.numpy() - expected()["img0_rope_angles"]).max() < 1e-5


def test_column_order_of_units_equals_the_reference() -> None:
    _, rows, columns = expected()["image_grid_thw"][0].tolist()
    assert column_unit_order(rows // 2, columns // 2).tolist() == expected()["img0_col_unit_index"].tolist()


def test_four_patches_of_a_unit_stand_together() -> None:
    assert patch_positions([(1, 4, 4)], 2)[:8].tolist() == [
        [0, 0], [0, 1], [1, 0], [1, 1],
        [0, 2], [0, 3], [1, 2], [1, 3],
    ]  # fmt: skip


def test_every_frame_counts_its_positions_from_zero() -> None:
    positions = patch_positions([(2, 2, 4), (1, 2, 4)], 2)
    assert torch.equal(positions[:8], positions[8:16]) and torch.equal(positions[:8], positions[16:])


def test_column_order_moves_units_and_keeps_patches_and_frames() -> None:
    order = column_order([(2, 4, 6), (1, 2, 4)], 2).tolist()
    assert order[:12] == [0, 1, 2, 3, 12, 13, 14, 15, 4, 5, 6, 7]
    assert order[24:36] == [24 + place for place in order[:12]]
    assert order[48:] == list(range(48, 56))  # a single row of units stays as it is
    assert sorted(order) == list(range(56))


def test_rotation_pairs_d_with_d_plus_half_and_keeps_lengths() -> None:
    x = torch.zeros(1, 1, 8)
    x[..., 1] = 1.0
    angle = torch.tensor([0.0, 0.5, 0.0, 0.0]).view(1, 1, 4)
    turned = rotate(x, angle.cos(), angle.sin())[0, 0]
    assert torch.allclose(turned[[1, 5]], torch.tensor([0.5]).cos().new_tensor([np.cos(0.5), np.sin(0.5)]))
    assert turned[[0, 2, 3, 4, 6, 7]].abs().max() == 0


def test_scores_depend_on_distances_only() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(1, 1, 16), torch.randn(1, 1, 16)

    def score(a: list[int], b: list[int]) -> float:
        angles = [rotary_angles(torch.tensor([place]), 16, 10000.0)[:, None] for place in (a, b)]
        return float((rotate(q, angles[0].cos(), angles[0].sin()) * rotate(k, angles[1].cos(), angles[1].sin())).sum())

    assert abs(score([3, 7], [5, 4]) - score([13, 27], [15, 24])) < 1e-4  # float32 sums of 16 products
    assert abs(score([3, 7], [5, 4]) - score([7, 3], [4, 5])) > 1e-2  # rows and columns are told apart


def test_rotation_of_bfloat16_is_computed_in_float32() -> None:
    torch.manual_seed(0)
    x = torch.randn(50, 2, 64).bfloat16()
    angles = rotary_angles(patch_positions([(1, 10, 20)], 2)[:50], 64, 10000.0)[:, None]
    found = rotate(x, angles.cos(), angles.sin())
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, rotate(x.float(), angles.cos(), angles.sin()).bfloat16())
