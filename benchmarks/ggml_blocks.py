"""Random weights in llama.cpp's block formats, as bytes: what its kernels read at full speed, with sound numbers.

Sizes and fields are those of ggml's block structures. 32 weights: q4_0 [f16 d][16 bytes], q8_0 [f16 d][32 bytes], mxfp4
[e8m0][16 bytes]. 256 weights: q4_K [f16 d, dmin][12 bytes of scales][128 bytes], q6_K [192 bytes][16 scales][f16 d].
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


class BlockFormat(NamedTuple):
    """Weights and bytes of a block."""

    weights: int
    nbytes: int

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per weight."""
        return 8 * self.nbytes / self.weights


FORMATS = {
    "q4_0": BlockFormat(32, 18),
    "q8_0": BlockFormat(32, 34),
    "mxfp4": BlockFormat(32, 17),
    "q4_K": BlockFormat(256, 144),
    "q6_K": BlockFormat(256, 210),
}

_DEVIATION = 0.02


def random_blocks(kind: str, rows: int, cols: int, generator: np.random.Generator) -> Bytes:
    """Return uint8 [rows, bytes of a row]: random codes, scales that give weights a deviation of about 0.02."""
    form = FORMATS[kind]
    blocks = generator.integers(0, 256, (rows * cols // form.weights, form.nbytes), dtype=np.uint8)
    if kind == "q4_0":
        blocks[:, :2] = _half(_DEVIATION / 4.6)
    elif kind == "q8_0":
        blocks[:, :2] = _half(_DEVIATION / 74)
    elif kind == "mxfp4":
        blocks[:, 0] = 121  # 2^-6: the codes spread over 0.5 to 6
    elif kind == "q4_K":  # 6-bit scales average 32, so do the minima's, and codes 7.5
        blocks[:, :2] = _half(_DEVIATION / 4.6 / 32)
        blocks[:, 2:4] = _half(_DEVIATION / 4.6 / 32 * 7.5)
    else:  # q6_K: 8-bit scales spread by 74, codes by 18
        blocks[:, 208:] = _half(_DEVIATION / 18 / 74)
    return blocks.reshape(rows, -1)


def _half(value: float) -> Bytes:
    return np.frombuffer(np.float16(value).tobytes(), np.uint8)
