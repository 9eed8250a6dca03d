"""Networks that keep bfloat16 weights and compute in float32, for processors that emulate bfloat16 products.

The weights take the memory of bfloat16; each is widened when it is used, which costs little beside the products.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class _Widened(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.float()


def widen(network: nn.Module) -> None:
    """Let all bfloat16 parameters of a filled network appear as float32, so that it computes in float32."""
    for part in list(network.modules()):
        for name, weight in list(part.named_parameters(recurse=False)):
            if weight.dtype == torch.bfloat16:
                parametrize.register_parametrization(part, name, _Widened(), unsafe=True)
