"""FP8 weights before FP8 activations: close to the product of the floats, and exactly that of the codes."""

import pytest
import torch

from mimo_cli.quant.w8a8 import W8A8Linear, quantize_rows


def test_a_row_keeps_its_largest_value_and_loses_a_sixteenth_at_most() -> None:
    rows = torch.randn(9, 64) * torch.logspace(-6, 6, 9)[:, None]
    codes, scales = quantize_rows(rows)
    back = codes.float() * scales
    assert codes.dtype == torch.float8_e4m3fn and scales.shape == (9, 1)
    torch.testing.assert_close(back.abs().amax(dim=1), rows.abs().amax(dim=1), rtol=1e-6, atol=0)
    # Three bits behind the leading one: half a step is 1/16; below 2^-6 of 448 steps are of one size.
    assert ((back - rows).abs() <= rows.abs() / 16 + scales * 2.0**-10).all()


def test_rows_of_zeros_stay_zeros() -> None:
    codes, scales = quantize_rows(torch.zeros(2, 16))
    assert (codes.float() * scales == 0).all() and torch.isfinite(scales).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_product_is_that_of_the_codes(dtype: torch.dtype) -> None:
    weight, x = torch.randn(32, 48), torch.randn(2, 5, 48).to(dtype)
    layer = W8A8Linear(weight)
    codes, scales = quantize_rows(x.view(-1, 48))
    exact = (codes.double() * scales) @ (layer.codes.double() * layer.scales).t()
    assert layer(x).dtype == dtype and layer(x).shape == (2, 5, 32)
    rounding = 0.0 if dtype == torch.float32 else 2.0**-8  # of the result, to eight bits
    assert ((layer(x).view(-1, 32).double() - exact).abs() <= 1e-5 + rounding * exact.abs()).all()
    assert 1e-3 < (layer(x).float() - x.float() @ weight.t()).norm() / (x.float() @ weight.t()).norm() < 0.08


def test_a_token_does_not_depend_on_its_neighbours() -> None:
    layer, x = W8A8Linear(torch.randn(32, 48)), torch.randn(7, 48)
    alone = torch.cat([layer(row[None]) for row in x])
    torch.testing.assert_close(layer(x), alone, rtol=0, atol=1e-5)
    assert layer.float_outputs(x.bfloat16()).dtype == torch.float32
