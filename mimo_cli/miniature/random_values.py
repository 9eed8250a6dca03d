"""Random numbers that are the same on every machine and with every version of every library.

Each tensor's values come from a hash of the seed and the tensor's own name, so they depend neither on the order in
which tensors are made nor on a random generator that a library may change. Only exact float32 operations follow.
"""

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class RandomValues:
    """Named random tensors of one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def uniform(self, name: str, shape: Sequence[int], std: float) -> Tensor:
        """Return float32 values, uniform around zero with standard deviation `std`, fixed by seed and name."""
        count = math.prod(shape)
        digest = hashlib.shake_256(f"{self.seed}/{name}".encode()).digest(2 * count)
        steps = np.frombuffer(digest, dtype="<i2").astype(np.float32)  # whole numbers in [-2^15, 2^15)
        # The half step makes the range symmetric; a uniform variable in [-1, 1] has the variance 1/3.
        values = (steps + np.float32(0.5)) * np.float32(std * math.sqrt(3.0) / 2**15)
        return torch.from_numpy(values.reshape(tuple(shape)))

    def around_one(self, name: str, size: int, std: float = 0.1) -> Tensor:
        """Return norm weights [size] near one."""
        return 1.0 + self.uniform(name, (size,), std)
