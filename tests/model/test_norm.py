"""RMSNorm: statistics in float32, one rounding before the weight."""

import pytest
import torch

from mimo_cli.model.norm import RMSNorm
from tests.support.kernels import kernels, needs_kernels


def test_rows_are_scaled_to_unit_mean_square_times_the_weight() -> None:
    norm = RMSNorm(8, eps=1e-5)
    norm.weight.data = torch.arange(1.0, 9.0)
    x = torch.randn(3, 5, 8)
    exact = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight.double()
    torch.testing.assert_close(norm(x).double(), exact, rtol=1e-6, atol=1e-6)


def test_epsilon_matters_for_small_rows() -> None:
    x = torch.full((1, 4), 1e-3)
    assert RMSNorm(4, eps=1e-5)(x)[0, 0] < 0.4 < 0.6 < RMSNorm(4, eps=1e-6)(x)[0, 0]


def test_bfloat16_is_rounded_before_the_weight_and_after() -> None:
    norm = RMSNorm(64, eps=1e-6, dtype=torch.bfloat16)
    norm.weight.data = torch.randn(64).bfloat16()
    x = torch.randn(7, 64).bfloat16()
    normed = x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + 1e-6)
    assert torch.equal(norm(x), normed.bfloat16() * norm.weight)


def test_large_bfloat16_rows_do_not_overflow() -> None:
    x = torch.full((1, 16), 3e38, dtype=torch.bfloat16) * torch.tensor(1e-20).bfloat16()
    assert torch.isfinite(RMSNorm(16, eps=1e-5, dtype=torch.bfloat16)(x)).all()


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernels_norm_a_few_rows_like_torch_and_a_row_like_alone(dtype: torch.dtype) -> None:
    norm = RMSNorm(100, eps=1e-5, dtype=dtype)
    norm.weight.data = torch.randn(100, generator=torch.Generator().manual_seed(1)).to(dtype)
    x = torch.randn(1, 8, 100, generator=torch.Generator().manual_seed(2)).to(dtype)
    with torch.inference_mode():
        expected = norm(x)
        norm.kernels = kernels()
        before = kernels().use.seconds
        found = norm(x)
        assert kernels().use.seconds > before and found.dtype == dtype and found.shape == x.shape
        assert all(torch.equal(norm(x[:, i : i + 1])[0, 0], found[0, i]) for i in range(8))
    # Only the order of the sum of squares differs: an ulp of the scale.
    torch.testing.assert_close(found, expected, rtol=3e-7 if dtype == torch.float32 else 2**-7, atol=0)


@needs_kernels
def test_what_needs_gradients_or_has_many_rows_is_left_to_torch() -> None:
    norm = RMSNorm(16, eps=1e-5)
    norm.kernels = kernels()
    before = kernels().use
    norm(torch.randn(2, 16)).sum().backward()
    with torch.inference_mode():
        norm(torch.randn(9, 16))
        norm(torch.randn(0, 16))
    assert norm.weight.grad is not None and kernels().use == before
