"""Keys and values of one timeline, layer by layer, with its length in tokens.

A forward pass writes behind `length` and never before it; only `advance` makes the new tokens count. Whatever stops a
pass half-way (an error, Ctrl-C) therefore leaves the timeline at its old length, ready to repeat the pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakSet

import torch
from torch import Tensor

from mimo_cli.checkpoint.config import AttentionConfig, ModelConfig
from mimo_cli.errors import MimoError
from mimo_cli.kvcache.full import FullKV
from mimo_cli.kvcache.sliding import SlidingKV, WindowSnapshot


class LayerKV(Protocol):
    """What an attention layer asks of its cache."""

    def update(self, keys: Tensor, values: Tensor, start: int) -> tuple[Tensor, Tensor, int]:
        """Store positions `start` onwards; return keys, values and the position of the first key returned."""
        ...

    def reserve(self, start: int, tokens: int, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
        """Return keys and values as `update` does, the new places unwritten; None where only `update` can."""
        ...


@dataclass(frozen=True, eq=False)
class KVSnapshot:
    """A length and copies of the windows that later tokens will push out."""

    length: int
    windows: tuple[WindowSnapshot | None, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the copies."""
        return sum(window.nbytes for window in self.windows if window)


class KVCache:
    """One cache per attention layer: growing for global layers, sliding for window layers.

    Memory is allocated on first use, on the device and for the batch size of the keys that arrive.
    """

    def __init__(
        self, attentions: Sequence[AttentionConfig], dtype: torch.dtype, max_tokens: int | None = None
    ) -> None:
        self.length = 0
        self.max_tokens = max_tokens
        self.layers: tuple[FullKV | SlidingKV, ...] = tuple(
            FullKV(dtype, max_tokens) if a.window is None else SlidingKV(a.window, dtype) for a in attentions
        )
        self._snapshots: WeakSet[KVSnapshot] = WeakSet()

    @classmethod
    def for_decoder(cls, config: ModelConfig, dtype: torch.dtype, max_tokens: int | None = None) -> "KVCache":
        """Build the cache of the main model."""
        return cls([config.attention(i) for i in range(config.num_hidden_layers)], dtype, max_tokens)

    @classmethod
    def for_mtp(cls, config: ModelConfig, dtype: torch.dtype) -> "KVCache":
        """Build the cache of one MTP module, which has a single sliding-window layer."""
        return cls([config.sliding_attention], dtype)

    @property
    def nbytes(self) -> int:
        """Allocated bytes of all layers."""
        return sum(layer.nbytes for layer in self.layers)

    def advance(self, tokens: int) -> None:
        """Make the first `tokens` tokens of the last forward pass part of the timeline."""
        length = self.length + tokens
        self._require(length)
        self._commit(length)

    def can_trim(self, length: int) -> bool:
        """Tell whether `trim(length)` would succeed."""
        return 0 <= length <= self.length and all(layer.holds(length) for layer in self.layers)

    def trim(self, length: int) -> None:
        """Forget all tokens from position `length` on; snapshots of longer timelines become void.

        Raises MimoError, changing nothing, where a sliding window has already left that place (at least
        `ROLLBACK_TOKENS` tokens can be taken back).
        """
        if not 0 <= length <= self.length:
            raise ValueError(f"a timeline of {self.length} tokens cannot be cut to {length}")
        self._require(length)
        self._forget_longer_snapshots(length)
        self._commit(length)

    def snapshot(self) -> KVSnapshot:
        """Copy what later tokens would push out: the windows. Global layers only grow and are not copied."""
        saved = KVSnapshot(self.length, tuple(layer.snapshot(self.length) for layer in self.layers))
        self._snapshots.add(saved)
        return saved

    def restore(self, saved: KVSnapshot) -> None:
        """Return exactly to a snapshot of this timeline; it may be restored again, longer ones become void.

        Raises MimoError if the timeline was cut below the snapshot's length since: its global keys are gone.
        """
        if saved not in self._snapshots:
            raise MimoError(
                f"the snapshot at {saved.length} tokens is void: the timeline was cut below that length since",
                hint="prefill again from the start, or restore an earlier snapshot",
            )
        for layer, window in zip(self.layers, saved.windows, strict=True):
            layer.restore(window)
        self._forget_longer_snapshots(saved.length)
        self._commit(saved.length)

    def _commit(self, length: int) -> None:
        self.length = length
        for layer in self.layers:
            layer.commit(length)

    def _require(self, length: int) -> None:
        if not all(layer.holds(length) for layer in self.layers):
            raise MimoError(
                f"a timeline of {self.length} tokens cannot move to {length}: a sliding window lacks that place",
                hint="restore a snapshot, or prefill again from the start",
            )

    def _forget_longer_snapshots(self, length: int) -> None:
        for saved in [s for s in self._snapshots if s.length > length]:
            self._snapshots.discard(saved)
