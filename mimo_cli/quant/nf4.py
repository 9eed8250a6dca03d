"""NF4 by bitsandbytes: what a matrix becomes when it passes through that format. A row to compare with, no storage.

Source: QLoRA's 4-bit normal float, one absolute maximum per 64 weights.
"""

import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from torch import Tensor

BLOCK = 64
BITS_PER_WEIGHT = 4 + 32 / BLOCK
"""Codes and one float32 per block; nested quantisation of the maxima would take 4.13."""


def round_trip(weight: Tensor) -> Tensor:
    """Return the float32 matrix that bitsandbytes makes of a weight [O, I] stored as NF4."""
    codes, state = quantize_4bit(weight.float().contiguous(), blocksize=BLOCK, quant_type="nf4")
    return dequantize_4bit(codes, state).to(torch.float32).view(weight.shape)
