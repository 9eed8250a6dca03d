"""Cache of one global layer: every position is kept, the buffer doubles as it fills.

Writing position p never touches a position before p, so a forward pass that fails half-way leaves no trace.
"""

import torch
from torch import Tensor

from mimo_cli.errors import ContextOverflowError
from mimo_cli.kvcache.slots import Slots, refuse_gradients

FIRST_SLOTS = 256
"""Slots of the first allocation."""


class FullKV:
    """Keys and values of all positions so far, at most `max_tokens` of them if that is given."""

    def __init__(self, dtype: torch.dtype, max_tokens: int | None = None) -> None:
        self.dtype = dtype
        self.max_tokens = max_tokens
        self._slots: Slots | None = None

    @property
    def nbytes(self) -> int:
        """Allocated bytes."""
        return self._slots.nbytes if self._slots else 0

    def update(self, keys: Tensor, values: Tensor, start: int) -> tuple[Tensor, Tensor, int]:
        """Store positions `start` onwards and return all keys, all values and the position of the first one (0).

        keys [B, K, n, D] and values [B, K, n, Dv] become views [B, K, start+n, ...] of the cache's dtype, valid until
        the next call. Raises ContextOverflowError beyond `max_tokens`; growing copies the layer once per doubling.
        """
        refuse_gradients(keys, values)
        end = start + keys.shape[2]
        if self._slots is None or end > self._slots.capacity_end:
            self._slots = self._grown(keys, values, start, end)
        self._slots.write(keys, values, start)
        return *self._slots.read(0, end), 0

    def reserve(self, start: int, tokens: int, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
        """Do what `update` does but leave the new places to be written by the caller: what the last of them may see.

        None, and nothing done, where the cache must allocate or move first, or has another dtype: `update` does that.
        """
        end = start + tokens
        if self._slots is None or dtype != self.dtype or start > self._slots.end or end > self._slots.capacity_end:
            return None
        self._slots.end = end
        return self._slots.read(0, end)

    def commit(self, length: int) -> None:
        """Do nothing: positions before `length` stay where they are."""

    def holds(self, length: int) -> bool:
        """Tell whether positions up to `length` have been stored (rolling back is always possible)."""
        return length <= (self._slots.end if self._slots else 0)

    def snapshot(self, length: int) -> None:
        """Save nothing: positions before `length` stay where they are."""

    def restore(self, saved: object) -> None:
        """Do nothing, see `snapshot`."""

    def _grown(self, keys: Tensor, values: Tensor, start: int, end: int) -> Slots:
        if self.max_tokens is not None and end > self.max_tokens:
            raise ContextOverflowError(
                f"{end} tokens do not fit a context of {self.max_tokens} tokens",
                hint="start with a larger --ctx, or shorten the prompt",
            )
        slots = max(end, FIRST_SLOTS, 2 * self._slots.capacity_end if self._slots else 0)
        slots = min(slots, self.max_tokens or slots)
        grown = Slots.allocate(keys, values, slots=slots, first=0, dtype=self.dtype)
        if self._slots and start:
            grown.write(*self._slots.read(0, start), 0)
        return grown
