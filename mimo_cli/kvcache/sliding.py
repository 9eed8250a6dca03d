"""Cache of one sliding-window layer: the last positions only, in a buffer the window slides through.

Positions are written in order; at the end of the buffer the last ones move to the front of a new one, so that the
window is always one contiguous view and no step copies it:

    first          end - window           end        capacity
      | rollback room | what the next token sees | free ... |

Nothing committed is overwritten: a pass that does not fit writes its tail to a second buffer, and the buffer that holds
the window before `start` is chosen anew by every call. A pass may also write in several calls: the buffer of the last
`commit` stays until the next. An interrupted pass is therefore repeated as if it had not been.
Letters: B batch, K kv heads, n tokens, D width of a key, Dv of a value.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mimo_cli.kvcache.slots import Slots, refuse_gradients

ROLLBACK_TOKENS = 16
"""Tokens that can always be taken back, beyond the window (a speculative step takes back at most a few)."""

STEP_TOKENS = 48
"""Single-token steps between two moves of the window to the front."""


@dataclass(frozen=True, eq=False)
class WindowSnapshot:
    """Copies of the keys [B, K, w, D] and values [B, K, w, Dv] from position `first` on."""

    keys: Tensor
    values: Tensor
    first: int

    @property
    def nbytes(self) -> int:
        """Bytes of the copies."""
        return self.keys.nbytes + self.values.nbytes


class SlidingKV:
    """Keys and values of the `window` positions before the next one, and some more for rolling back."""

    def __init__(self, window: int, dtype: torch.dtype) -> None:
        self.window = window
        self.dtype = dtype
        self.keep_tokens = window + ROLLBACK_TOKENS
        self.capacity_tokens = self.keep_tokens + STEP_TOKENS
        self._buffers: tuple[Slots, ...] = ()
        self._committed = 0

    @property
    def nbytes(self) -> int:
        """Allocated bytes."""
        return sum(buffer.nbytes for buffer in self._buffers)

    def update(self, keys: Tensor, values: Tensor, start: int) -> tuple[Tensor, Tensor, int]:
        """Store positions `start` onwards; return what they may see and the position of the first key returned.

        keys [B, K, n, D] and values [B, K, n, Dv] become tensors [B, K, m, ...] of the cache's dtype with the up to
        `window` positions before `start` in front, valid until the next call. A long pass makes a copy of them.
        """
        refuse_gradients(keys, values)
        end = start + keys.shape[2]
        held = self._empty(keys, values, 0) if start == 0 else self._holding(start)
        visible = max(0, start - self.window)
        if end > held.capacity_end:
            return self._slide(held, keys, values, start)
        held.write(keys, values, start)
        self._buffers = self._with_committed(held)
        return *held.read(visible, end), visible

    def reserve(self, start: int, tokens: int, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
        """Do what `update` does but leave the new places to be written by the caller: what they may see.

        None, and nothing done, where the cache must allocate or move first, or has another dtype: `update` does that.
        """
        held, end = self._find(start) if start else None, start + tokens
        if held is None or dtype != self.dtype or end > held.capacity_end:
            return None
        held.end, self._buffers = end, self._with_committed(held)
        return held.read(max(0, start - self.window), end)

    def commit(self, length: int) -> None:
        """Note that the timeline has so many tokens now: a pass that is interrupted goes back there."""
        self._committed = length

    def holds(self, length: int) -> bool:
        """Tell whether the window before position `length` is still here."""
        return length == 0 or self._find(length) is not None

    def snapshot(self, length: int) -> WindowSnapshot | None:
        """Copy the window before position `length`."""
        if length == 0:
            return None
        first = max(0, length - self.window)
        keys, values = self._holding(length).read(first, length)
        return WindowSnapshot(keys.clone(), values.clone(), first)

    def restore(self, saved: WindowSnapshot | None) -> None:
        """Replace the content by a snapshot, which stays usable."""
        if saved is None:
            self._buffers = ()
            return
        buffer = self._empty(saved.keys, saved.values, saved.first)
        buffer.write(saved.keys, saved.values, saved.first)
        self._buffers = (buffer,)

    def _slide(self, held: Slots, keys: Tensor, values: Tensor, start: int) -> tuple[Tensor, Tensor, int]:
        end, visible = start + keys.shape[2], max(0, start - self.window)
        first = max(held.first, start - self.keep_tokens)
        old_keys, old_values = held.read(first, start)
        keys = torch.cat([old_keys, keys.to(self.dtype)], dim=2)  # [B, K, end-first, D]
        values = torch.cat([old_values, values.to(self.dtype)], dim=2)
        kept = max(first, end - self.keep_tokens)
        fresh = self._empty(keys, values, kept)
        fresh.write(keys[:, :, kept - first :], values[:, :, kept - first :], kept)
        self._buffers = (*self._with_committed(held)[:1], fresh)
        return keys[:, :, visible - first :], values[:, :, visible - first :], visible

    def _empty(self, keys: Tensor, values: Tensor, first: int) -> Slots:
        return Slots.allocate(keys, values, slots=self.capacity_tokens, first=first, dtype=self.dtype)

    def _with_committed(self, held: Slots) -> tuple[Slots, ...]:
        """Return the buffers to keep beside a new one: what the timeline rests on, and the one written last."""
        base = self._find(self._committed) if self._committed else None
        return (held,) if base is None or base is held else (base, held)

    def _find(self, length: int) -> Slots | None:
        needed = max(0, length - self.window)
        for buffer in reversed(self._buffers):  # the newest first: an older one ends earlier
            if buffer.first <= needed and length <= buffer.end:
                return buffer
        return None

    def _holding(self, length: int) -> Slots:
        buffer = self._find(length)
        if buffer is None:
            spans = ", ".join(f"{b.first}..{b.end}" for b in self._buffers) or "nothing"
            raise RuntimeError(f"the window before position {length} is not cached (held: {spans})")
        return buffer
