"""RMSNorm, the only normalization of the text model."""

import torch
from torch import Tensor, nn

from mimo_cli.quant.kernels import FEW_TOKENS, Kernels, Norm


class RMSNorm(nn.Module):
    """x / rms(x) * weight. Statistics in float32; rounded to the dtype of x before the weight is applied.

    Source: the release's modeling file. The weight is centred on one as stored.
    """

    def __init__(self, size: int, eps: float, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.eps = eps
        self.kernels: Kernels | None = None  # given at loading, where there are any
        self.weight = nn.Parameter(torch.ones(size, dtype=dtype))

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[..., size] -> [..., size], same dtype."""
        size = hidden_states.shape[-1]
        if self.kernels and self.is_native(hidden_states, hidden_states.numel() // size):
            return self.kernels.norm(hidden_states.reshape(-1, size), self.native).view_as(hidden_states)
        x = hidden_states.float()
        x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)
        return x.to(hidden_states.dtype) * self.weight

    @property
    def native(self) -> Norm:
        """What the kernels norm with."""
        return Norm(self.weight, self.eps)

    def is_native(self, hidden_states: Tensor, rows: int) -> bool:
        """Whether the kernels can norm: a few rows of the weight's dtype, without gradients."""
        return (
            0 < rows <= FEW_TOKENS
            and hidden_states.dtype == self.weight.dtype
            and hidden_states.dtype in (torch.float32, torch.bfloat16)
            and not (torch.is_grad_enabled() and (hidden_states.requires_grad or self.weight.requires_grad))
        )
