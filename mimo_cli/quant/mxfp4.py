"""MXFP4: two e2m1 codes per byte (low nibble = even input) and one e8m0 scale byte per 32 consecutive inputs.

Owns the arithmetic of the format both ways. A code is a sign bit and a magnitude index 0..7 -> 0, 0.5, 1, 1.5, 2, 3,
4, 6; a scale byte s stands for 2^(s - 127). Bytes of a release are copied, never re-encoded: decoding and encoding
again keeps the values but not the bytes.

Letters: O output rows, I inputs.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor

from mimo_cli.errors import CheckpointError

BLOCK = 32
"""Inputs that share one scale byte."""

MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)

_SCALE_BIAS = 127
SCALE_NAN = 255
"""The one e8m0 byte that is no number."""

_SLAB_BYTES = 1 << 18
"""Rows are decoded in slabs of about this many packed bytes: the float32 values stay in the CPU cache."""

_EXPONENT_GAP = 2.0**14
"""float16's exponent bias is 15, e2m1's is 1: aligned bits read as float16 are too small by 2^14."""

_SCALES = torch.tensor([math.ldexp(1.0, byte - _SCALE_BIAS) for byte in range(SCALE_NAN)] + [math.nan])
"""[256] float32. Built by ldexp: byte 0 is 2^-127, a float32 subnormal that no exponent-field shift can give."""

_MIDPOINTS = torch.tensor([(low + high) / 2 for low, high in pairwise(MAGNITUDES)])


def decode(weight: Tensor, weight_scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Decode a packed matrix.

    weight [O, I/2] uint8, weight_scale [O, I/32] uint8. The product is computed in float32, then rounded to `dtype`.
    Returns a new [O, I] tensor; peak memory is that and one slab of rows.
    Raises CheckpointError if the scales do not cover the weight or one of them is NaN (255).
    """
    rows, half_columns = weight.shape
    columns = 2 * half_columns
    if columns % BLOCK or tuple(weight_scale.shape) != (rows, columns // BLOCK):
        raise CheckpointError(
            f"MXFP4 scales {list(weight_scale.shape)} do not cover packed weights {list(weight.shape)}: "
            f"one scale byte for each {BLOCK // 2} packed bytes expected"
        )
    if bool((weight_scale == SCALE_NAN).any()):
        raise CheckpointError(f"an MXFP4 scale byte is NaN ({SCALE_NAN})")
    result = torch.empty(rows, columns, dtype=dtype)
    slab_rows = max(1, _SLAB_BYTES // max(half_columns, 1))
    for start in range(0, rows, slab_rows):
        slab = slice(start, start + slab_rows)
        scales = _SCALES[weight_scale[slab].to(torch.int32)]  # [n, I/32]
        values = _decode_codes(weight[slab]).view(-1, columns // BLOCK, BLOCK)
        result[slab] = values.mul_(scales[:, :, None]).view(-1, columns)
    return result


def encode(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Encode a matrix: per 32 inputs the smallest power of two that keeps magnitudes within 6, then the nearest code.

    weight [O, I] of any float dtype, I a multiple of 32. Returns packed uint8 [O, I/2] and scale bytes uint8 [O, I/32].
    A tie goes to the even magnitude index. Raises CheckpointError if a weight is not finite.
    """
    values = weight.to(torch.float32)
    if values.shape[1] % BLOCK:
        raise CheckpointError(f"MXFP4 needs a multiple of {BLOCK} inputs, found {values.shape[1]}")
    if not bool(torch.isfinite(values).all()):
        raise CheckpointError("a weight that is not finite cannot be encoded as MXFP4")
    blocks = values.double().view(values.shape[0], -1, BLOCK)  # float64: dividing by 2^-127 must not overflow
    peaks = blocks.abs().amax(dim=2)
    mantissa, exponent = torch.frexp(peaks)  # peak = mantissa x 2^exponent, mantissa in [0.5, 1)
    exponent = torch.where(mantissa <= 0.75, exponent - 3, exponent - 2)  # 0.75 x 2^3 = 6
    exponent = torch.where(peaks > 0, exponent, torch.zeros_like(exponent)).clamp(-_SCALE_BIAS, _SCALE_BIAS)
    scaled = blocks / torch.exp2(exponent.double())[:, :, None]
    codes = _nearest_magnitude(scaled.abs().float()) + 8 * (scaled < 0)  # [O, I/32, 32]
    codes = codes.view(values.shape).to(torch.uint8)
    return codes[:, 0::2] | (codes[:, 1::2] << 4), (exponent + _SCALE_BIAS).to(torch.uint8)


def _nearest_magnitude(magnitudes: Tensor) -> Tensor:
    """Return the index of the nearest entry of MAGNITUDES, int64; ties go to the even index."""
    below = torch.bucketize(magnitudes, _MIDPOINTS, right=False)  # midpoints strictly below the value
    above = torch.bucketize(magnitudes, _MIDPOINTS, right=True)  # midpoints at or below it
    return torch.where(below % 2 == 0, below, above)


def _decode_codes(packed: Tensor) -> Tensor:
    """Turn packed codes [n, I/2] uint8 into float32 values [n, I]: the bits move to float16's places."""
    bits = packed.to(torch.int16)
    pairs = torch.empty(*packed.shape, 2, dtype=torch.int16)  # [n, I/2, 2]: low nibble, high nibble
    pairs[..., 0] = ((bits << 12) & -0x8000) | ((bits << 9) & 0x0E00)
    pairs[..., 1] = ((bits << 8) & -0x8000) | ((bits << 5) & 0x0E00)
    return pairs.view(torch.float16).to(torch.float32).mul_(_EXPONENT_GAP).view(packed.shape[0], -1)
