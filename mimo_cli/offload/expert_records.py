"""ExpertRecords: where packed experts come from, as the expert store sees it.

A record is one routed expert ready to compute with: its gate and up matrices in one packed stream, its down matrix in
the next, nothing between. Those who supply records know files; those who use them know only sizes and bytes.
"""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

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
        """What a record costs to fetch: bytes read from the files."""
        ...

    def read(self, layer: int, expert_ids: Sequence[int], slots: Sequence[Tensor]) -> None:
        """Fill a slot for each expert, in whatever order and by as many reads at once as is fast.

        slots: uint8 [record_bytes] each, at addresses that are multiples of 4096, in memory advised to huge pages; the
        memory up to the next multiple of 4096 is theirs too. Raises CheckpointError if an expert cannot be read.
        """
        ...

    def close(self) -> None:
        """Give files back."""
        ...
