"""The dense SwiGLU feed-forward of layer 0 and of the MTP modules."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from mimo_cli.quant.kernels import FEW_TOKENS, Product
from mimo_cli.quant.linear import Linear, PackedLinear, refuse_gradients


class MLP(nn.Module):
    """down(silu(gate(x)) * up(x)), without biases."""

    def __init__(self, hidden_size: int, intermediate_size: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.gate_proj: nn.Module = Linear(hidden_size, intermediate_size, dtype=dtype)
        self.up_proj: nn.Module = Linear(hidden_size, intermediate_size, dtype=dtype)
        self.down_proj: nn.Module = Linear(intermediate_size, hidden_size, dtype=dtype)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[..., H] -> [..., H]. A few tokens go through packed layers in one call of the kernels."""
        gate, products = self.gate_proj, self.products
        rows = hidden_states.reshape(-1, hidden_states.shape[-1])
        is_few = 0 < len(rows) <= FEW_TOKENS and rows.dtype in (torch.float32, torch.bfloat16)
        if products is None or not isinstance(gate, PackedLinear) or not is_few:
            product: Tensor = self.down_proj(functional.silu(gate(hidden_states)) * self.up_proj(hidden_states))
            return product
        refuse_gradients(hidden_states)
        return gate.kernels.feed_forward(products, rows.contiguous()).view_as(hidden_states)

    @property
    def products(self) -> tuple[Product, Product, Product] | None:
        """What the kernels multiply with, in the order of the layers; None where one of those is not packed."""
        gate, up, down = self.gate_proj, self.up_proj, self.down_proj
        if isinstance(gate, PackedLinear) and isinstance(up, PackedLinear) and isinstance(down, PackedLinear):
            return gate.product, up.product, down.product
        return None
