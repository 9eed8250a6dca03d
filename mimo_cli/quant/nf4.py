"""NF4 and INT8 by bitsandbytes: dense layers for cards without FP8, and what NF4 makes of a matrix.

Source: QLoRA's 4-bit normal float, one absolute maximum per 64 weights. Both lose precision and are asked for by name.
"""

import torch
from bitsandbytes import matmul_4bit
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from bitsandbytes.nn import Int8Params, Linear8bitLt
from torch import Tensor, nn

BLOCK = 64
BITS_PER_WEIGHT = 4 + 32 / BLOCK
"""Codes and one float32 per block; nested quantisation of the maxima would take 4.13."""

_OUTLIERS = 6.0
"""Columns of activations beyond this are multiplied unrounded, as LLM.int8 has it."""


def round_trip(weight: Tensor) -> Tensor:
    """Return the float32 matrix that bitsandbytes makes of a weight [O, I] stored as NF4."""
    codes, state = quantize_4bit(weight.float().contiguous(), blocksize=BLOCK, quant_type="nf4")
    return dequantize_4bit(codes, state).to(torch.float32).view(weight.shape)


class Nf4Linear(nn.Module):
    """A dense layer without bias over a float `weight` [O, I], kept as NF4 on its device."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.codes: Tensor
        codes, self.state = quantize_4bit(weight.contiguous(), blocksize=BLOCK, quant_type="nf4")
        self.register_buffer("codes", codes)

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O], in the dtype of x."""
        return matmul_4bit(x, self.codes.t(), quant_state=self.state)

    def float_outputs(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O] float32."""
        return self(x).float()


class Int8Linear(nn.Module):
    """A dense layer without bias over a float `weight` [O, I], kept in 8 bits on its device."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        rows, cols = weight.shape
        self.inner = Linear8bitLt(cols, rows, bias=False, has_fp16_weights=False, threshold=_OUTLIERS, device="meta")
        self.inner.weight = Int8Params(weight.cpu().contiguous(), requires_grad=False, has_fp16_weights=False)
        self.inner.to(weight.device)

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O], in the dtype of x."""
        return self.inner(x)

    def float_outputs(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O] float32."""
        return self(x).float()
