"""RMSNorm: statistics in float32, one rounding before the weight."""

import torch

from mimo_cli.model.norm import RMSNorm


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
