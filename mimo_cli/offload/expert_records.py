"""ExpertRecords: where packed experts come from, as the expert store sees it.

A record is one routed expert ready to compute with: its gate and up matrices in one packed stream, its down matrix in
the next, nothing between. Those who supply records say which bytes of which files an expert is and how they become a
record; reading them is the business of the expert store, which does it past the system's cache and several at a time.
"""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from mimo_cli.checkpoint.extent import Extent
from mimo_cli.quant.packed import PackedShape


class ExpertRecords(Protocol):
    """Packed experts of every layer, all of one size."""

    @property
    def up_shape(self) -> PackedShape:
        """Gate and up [I, H] in two streams: the first `up_shape.nbytes` of a record."""
        ...

    @property
    def down_shape(self) -> PackedShape:
        """Down [H, I] in the same format: the `down_shape.nbytes` that follow."""
        ...

    @property
    def record_bytes(self) -> int:
        """Length of a record: the streams, and any padding behind them."""
        ...

    @property
    def stored_bytes(self) -> int:
        """What a record costs to fetch: bytes of its extents."""
        ...

    @property
    def is_stored_so(self) -> bool:
        """Tell whether an expert is one extent that is its record, byte by byte, at a multiple of 4096."""
        ...

    def extents(self, layer: int, expert_id: int) -> Sequence[Extent]:
        """Return the bytes that an expert is made of; none where it comes from no file.

        Raises CheckpointError where there is no such expert.
        """
        ...

    def checksum(self, layer: int, expert_id: int) -> int | None:
        """Return the CRC-32 that a record had when it was written; None where nobody noted it."""
        ...

    def place(self, layer: int, expert_id: int, parts: Sequence[Tensor], slot: Tensor) -> None:
        """Make a record of the bytes of the extents, in their order: parts uint8, slot uint8 [record_bytes].

        The slot lies at a multiple of 4096, in memory advised to huge pages; the memory up to the next multiple of 4096
        is its own too. Called by several threads at once. Raises CheckpointError if the bytes are damaged.
        """
        ...

    def close(self) -> None:
        """Give back what is held."""
        ...
