"""The dense product of the text model, y = x W^T (+ b): Linear over floats, PackedLinear over packed weights.

The network is built of Linear, which can be trained; where there are native kernels, loading puts a PackedLinear in its
place, unseen by the network.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from mimo_cli.errors import MimoError
from mimo_cli.quant.kernels import FEW_TOKENS, Kernels, Precision, Product
from mimo_cli.quant.packed import PackedShape

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

    def float_outputs(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O] float32: as exact as torch has them, which is the dtype of the weight."""
        return self(x).float()


class PackedLinear(nn.Module):
    """A dense layer over a packed stream `data` uint8 [shape.nbytes], computed by the kernels, without gradients.

    `precision` is that of the activations inside; results have the dtype of the input.
    """

    def __init__(self, kernels: Kernels, shape: PackedShape, data: Tensor, precision: Precision) -> None:
        super().__init__()
        self.kernels = kernels
        self.shape = shape
        self.precision: Precision = precision
        self.data: Tensor
        self.register_buffer("data", data)

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O], in the dtype of x. Raises MimoError where gradients are asked for."""
        rows = x.reshape(-1, self.shape.cols)
        if not 0 < len(rows) <= FEW_TOKENS or x.dtype not in (torch.float32, torch.bfloat16):
            return self.float_outputs(x).to(x.dtype)
        refuse_gradients(x)
        y = self.kernels.linear_cells(self.product, rows.contiguous())
        return y.view(*x.shape[:-1], self.shape.rows)

    @property
    def product(self) -> Product:
        """What the kernels multiply with."""
        return Product(self.shape, self.data, self.precision)

    def float_outputs(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O] float32, the sums as the kernels have them, never rounded to a smaller dtype."""
        refuse_gradients(x)
        rows = x.reshape(-1, self.shape.cols)
        y = self.kernels.linear(self.shape, self.data, rows.float(), self.precision)
        return y.view(*x.shape[:-1], self.shape.rows)


def packed_product(layer: nn.Module) -> Product:
    """Return what the kernels multiply with for a layer. Raises TypeError where it is not packed."""
    if not isinstance(layer, PackedLinear):
        raise TypeError(f"the kernels read packed layers, found {type(layer).__name__}")
    return layer.product


def refuse_gradients(x: Tensor) -> None:
    """Raise MimoError if a result of x would need a gradient: the native kernels compute none."""
    if x.requires_grad and torch.is_grad_enabled():
        raise MimoError(
            "packed weights have no gradients, and the input asks for one",
            hint="train on float weights: MIMO_ISA=none loads the model without the native kernels",
        )


def native_precision(dtype: torch.dtype) -> Precision:
    """Return the precision of the activations that goes with a compute dtype and loses nothing beyond it."""
    return "bfloat16" if dtype == torch.bfloat16 else "exact"
