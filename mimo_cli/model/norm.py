"""RMSNorm, the only normalization of the text model."""

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """x / rms(x) * weight. Statistics in float32; rounded to the dtype of x before the weight is applied.

    Source: text specification 4.1. The weight is centred on one as stored.
    """

    def __init__(self, size: int, eps: float, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size, dtype=dtype))

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[..., size] -> [..., size], same dtype."""
        x = hidden_states.float()
        x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)
        return x.to(hidden_states.dtype) * self.weight
