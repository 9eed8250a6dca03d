"""Which type training multiplies in: bfloat16 where the processor or the card has instructions for it, else float32.

Without them torch emulates bfloat16 products, ten times slower than float32.
"""

from functools import cache

import torch
from torch import Tensor

from mimo_cli.engine.processor import has_native_bfloat16


@cache
def product_dtype(device: str = "cpu") -> torch.dtype:
    """The type of products on a kind of device ("cpu", "cuda")."""
    if device != "cpu":
        return torch.bfloat16
    return torch.bfloat16 if has_native_bfloat16() else torch.float32


def dtype_for(weight: Tensor) -> torch.dtype:
    """The type of products where this weight lies."""
    return product_dtype(weight.device.type)


def autocast(weight: Tensor) -> torch.autocast:
    """A context in which networks multiply in `dtype_for(weight)`."""
    dtype = dtype_for(weight)
    return torch.autocast(weight.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)
