"""Linear: y = x W^T (+ b), the one dense product of the text model.

A class of its own because packed weight formats will take their place inside it, unseen by the network.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

INIT_STD = 0.02
"""Standard deviation of freshly made weights (the vendor's `initializer_range`); loading replaces them."""


class Linear(nn.Module):
    """A dense layer over `weight` [O, I], stored as checkpoints store it, with an optional `bias` [O]."""

    def __init__(
        self, in_features: int, out_features: int, *, bias: bool = False, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(out_features, dtype=dtype)) if bias else None
        nn.init.normal_(self.weight, std=INIT_STD)

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O], in the dtype of the weight."""
        return functional.linear(x, self.weight, self.bias)
