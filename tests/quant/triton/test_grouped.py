"""Products in 8 bits of sorted rows with their experts' matrices."""

import pytest
import torch

from mimo_cli.quant.triton.grouped import Scaling, TileShape, grouped_product, quantize_rows, tile_table
from tests.support.triton_interpreter import DEVICE

SHAPE = TileShape(16, 128, 4, 2) if DEVICE == "cpu" else TileShape(128, 128, 8, 3)


@pytest.mark.parametrize("scaling", ["block", "row"])
def test_rows_are_quantised_to_448_by_their_largest_magnitude(scaling: Scaling) -> None:
    x = torch.randn(3, 256)
    x[1, :128] *= 1000
    x[2] = 0
    codes, scales = (tensor.cpu() for tensor in quantize_rows(x.to(DEVICE), scaling))
    assert scales.shape == ((3, 2) if scaling == "block" else (3, 1))
    spread = scales.repeat_interleave(256 // scales.shape[1], dim=1)
    assert codes.float().abs().amax(dim=1).tolist() == [448, 448, 0]
    # e4m3 keeps 4 bits, 2.6 % of a number on average; the interpreter cuts bits off, up to an eighth.
    assert (codes.float() * spread - x)[:2].norm() < (0.03 if DEVICE == "cuda" else 0.13) * x.norm()


@pytest.mark.parametrize("scaling", ["block", "row"])
def test_each_row_meets_the_matrix_of_its_expert(scaling: Scaling) -> None:
    counts, outputs, inputs = [5, 0, 20], 128, 256
    rows, row_scales = quantize_rows(torch.randn(25, inputs, device=DEVICE), scaling)
    weights = torch.randn(3, outputs, inputs).mul(16).to(torch.float8_e4m3fn)
    scale_shape = (3, outputs // 128, inputs // 128) if scaling == "block" else (3, outputs)
    scales = torch.rand(scale_shape) + 0.5
    tiles = tile_table(counts, outputs, SHAPE).to(DEVICE)
    result = grouped_product(
        rows, row_scales, weights.to(DEVICE), scales.to(DEVICE), tiles, scaling, SHAPE, torch.float32
    ).cpu()
    wide = weights.double()
    if scaling == "block":
        wide *= scales.double().repeat_interleave(128, 1).repeat_interleave(128, 2)
    else:
        wide *= scales.double()[..., None]
    spread = row_scales.cpu().double().repeat_interleave(inputs // row_scales.shape[1], dim=1)
    experts = [0] * 5 + [2] * 20
    expected = torch.einsum("pi,poi->po", rows.cpu().double() * spread, wide[experts])
    # Tensor cores of Hopper keep 14 bits of a sum of e4m3 products.
    assert (result.double() - expected).norm() / expected.norm() < (1e-6 if DEVICE == "cpu" else 1e-3)


def test_the_row_tiles_of_a_strip_of_weights_are_neighbours() -> None:
    table = tile_table([130, 0, 1], 256, TileShape(128, 128, 8, 3)).tolist()
    assert table == [
        [0, 0, 130, 0],
        [0, 128, 130, 0],
        [0, 0, 130, 128],
        [0, 128, 130, 128],
        [2, 130, 131, 0],
        [2, 130, 131, 128],
    ]


def test_a_matrix_that_is_not_made_of_tiles_is_refused() -> None:
    rows, scales = torch.empty(1, 200).to(torch.float8_e4m3fn), torch.empty(1, 1)
    with pytest.raises(ValueError, match="not made of tiles"):
        grouped_product(rows, scales, torch.empty(1, 128, 200), scales, torch.empty(0, 4), "row", SHAPE)
