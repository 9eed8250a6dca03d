"""One allocation of keys and values for a run of consecutive positions.

Both kinds of layer cache are made of it. Letters: B batch, K kv heads, n tokens, D width of a key, Dv of a value.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Slots:
    """Keys [B, K, slots, D] and values [B, K, slots, Dv]; slot s holds position `first + s`, valid up to `end`."""

    keys: Tensor
    values: Tensor
    first: int
    end: int

    @classmethod
    def allocate(cls, keys: Tensor, values: Tensor, *, slots: int, first: int, dtype: torch.dtype) -> "Slots":
        """Return empty slots shaped and placed for `keys` [B, K, n, D] and `values` [B, K, n, Dv]."""
        batch, heads, _, width = keys.shape
        return cls(
            keys=keys.new_empty(batch, heads, slots, width, dtype=dtype),
            values=values.new_empty(batch, heads, slots, values.shape[-1], dtype=dtype),
            first=first,
            end=first,
        )

    @property
    def capacity_end(self) -> int:
        """The first position that no longer fits."""
        return self.first + self.keys.shape[2]

    @property
    def nbytes(self) -> int:
        """Allocated bytes."""
        return self.keys.nbytes + self.values.nbytes

    def write(self, keys: Tensor, values: Tensor, start: int) -> None:
        """Store positions `start` onwards, in place, and forget what was held behind them."""
        low, end = start - self.first, start + keys.shape[2]
        self.keys[:, :, low : end - self.first] = keys
        self.values[:, :, low : end - self.first] = values
        self.end = end

    def read(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Return views of the keys and values at positions [start, end)."""
        low, high = start - self.first, end - self.first
        return self.keys[:, :, low:high], self.values[:, :, low:high]


def refuse_gradients(keys: Tensor, values: Tensor) -> None:
    """Raise RuntimeError for tensors that record gradients: stored keys would keep the graph of every past step."""
    if keys.requires_grad or values.requires_grad:
        raise RuntimeError("the KV cache carries no gradients: call under torch.no_grad(), or train without a cache")
