"""Random matrices in every packed format, with the float64 weights they stand for, worked out from the definitions."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mimo_cli.quant.kernels import Kernels
from mimo_cli.quant.packed import GROUPS, PackedFormat, PackedShape

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
KINDS: list[tuple[PackedFormat, int]] = [(kind, group) for kind, groups in GROUPS.items() for group in groups]


class RandomMatrix(NamedTuple):
    """Codes and scales as `Kernels.pack` takes them; weights float64 [rows, cols]."""

    codes: Tensor
    scales: Tensor
    weights: NDArray[np.float64]


def random_matrix(
    kind: PackedFormat, group: int, rows: int, cols: int, seed: int = 0, factor: float = 0.01
) -> RandomMatrix:
    """Draw a matrix whose scales are at most `factor` (mxfp4: powers of two around 2^-7, whatever the factor)."""
    rng = np.random.default_rng((seed, rows, cols))
    groups = -(-cols // group)
    if kind == "bf16":
        values = torch.from_numpy((rng.standard_normal((rows, cols)) * factor).astype(np.float32)).bfloat16()
        return RandomMatrix(values, torch.empty(0), values.double().numpy())
    if kind == "fp8":
        codes = rng.integers(0, 256, (rows, cols), dtype=np.uint8)
        codes[(codes & 127) == 127] = 0  # NaN
        block_scales = (rng.random((-(-rows // 16), groups)) * factor).astype(np.float32)
        values = torch.from_numpy(codes).view(torch.float8_e4m3fn).double().numpy()
        spread = block_scales.astype(float).repeat(16, 0)[:rows].repeat(128, 1)[:, :cols]
        return RandomMatrix(torch.from_numpy(codes), torch.from_numpy(block_scales), values * spread)
    if kind == "mxfp4":
        codes, exponents = (
            rng.integers(0, 16, (rows, cols), dtype=np.uint8),
            rng.integers(115, 125, (rows, groups), dtype=np.uint8),
        )
        weights = E2M1[codes] * np.ldexp(1.0, exponents.astype(int) - 127).repeat(32, 1)[:, :cols]
        return RandomMatrix(torch.from_numpy(codes), torch.from_numpy(exponents), weights)
    low, high = (-8, 8) if kind == "int4" else (-127, 128)
    codes8, scales = (
        rng.integers(low, high, (rows, cols), dtype=np.int8),
        (rng.random((rows, groups)) * factor).astype(np.float16),
    )
    weights = codes8 * scales.astype(float).repeat(group, 1)[:, :cols]
    return RandomMatrix(torch.from_numpy(codes8), torch.from_numpy(scales), weights)


def packed(kernels: Kernels, shape: PackedShape, *matrices: RandomMatrix) -> Tensor:
    """Pack the matrices of one stream natively."""
    data = torch.zeros(shape.nbytes, dtype=torch.uint8)
    for stream, matrix in enumerate(matrices):
        kernels.pack(shape, data, stream, matrix.codes, matrix.scales)
    return data
