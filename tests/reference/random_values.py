"""Random weights that come out the same on every machine: raw draws of PCG64 and arithmetic on integers.

numpy keeps the raw stream of its PCG64 as it is; how it makes normal numbers of the draws may change between versions.
So a number here is the sum of the four 16-bit parts of one draw, which is near enough to normal: no weight lies more
than 3.5 deviations from the middle.
"""

import numpy as np
from numpy.typing import NDArray

from tests.reference.storage import Array

_MIDDLE = 4 * (2**16 - 1) / 2
_DEVIATION = float(np.sqrt(4 * (2.0**32 - 1) / 12))


class RandomValues:
    """A stream of random numbers that a seed fixes."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def near_normal(self, shape: tuple[int, ...], deviation: float, middle: float = 0.0) -> Array:
        """Return numbers of this deviation around `middle`."""
        parts = self._raw(int(np.prod(shape))).view(np.uint16).reshape(-1, 4)
        sums = parts.sum(1, dtype=np.int64)
        values = (sums - _MIDDLE) / _DEVIATION * deviation + middle
        return values.reshape(shape).astype(np.float32)

    def from_one_to_two(self, shape: tuple[int, ...]) -> Array:
        """Return numbers from 1 to 2, evenly spread."""
        return (1 + (self._raw(int(np.prod(shape))) >> np.uint64(41)) / 2.0**23).reshape(shape).astype(np.float32)

    def _raw(self, count: int) -> NDArray[np.uint64]:
        return np.asarray(self._bits.random_raw(count), "<u8")
