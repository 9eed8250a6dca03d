"""The trainer's experts compute what the package's experts compute, and so do their gradients."""

import torch

from mimo_cli.quant.experts import swiglu_experts
from training.experts import SortedExperts


def _problem() -> tuple[list[torch.Tensor], torch.Tensor]:
    torch.manual_seed(0)
    x, gate_up, down = torch.randn(9, 8), torch.randn(4, 12, 8), torch.randn(4, 8, 6)
    ids = torch.stack([torch.randperm(3)[:2] for _ in range(9)])  # expert 3 gets no token
    weights = torch.rand(9, 2)
    return [tensor.requires_grad_() for tensor in (x, weights, gate_up, down)], ids


def test_sum_over_experts_equals_that_of_the_package() -> None:
    (x, weights, gate_up, down), ids = _problem()
    expected = swiglu_experts(x, ids, weights, lambda e: (*gate_up[e].chunk(2), down[e]))
    found = SortedExperts.apply(x, ids, weights, gate_up, down)
    torch.testing.assert_close(found, expected)


def test_gradients_equal_those_of_autograd() -> None:
    tensors, ids = _problem()
    x, weights, gate_up, down = tensors
    probe = torch.randn(9, 8)
    expected = torch.autograd.grad(
        (swiglu_experts(x, ids, weights, lambda e: (*gate_up[e].chunk(2), down[e])) * probe).sum(), tensors
    )
    found = torch.autograd.grad((SortedExperts.apply(x, ids, weights, gate_up, down) * probe).sum(), tensors)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert not found[2][3].any(), "an expert without tokens has no gradient"
