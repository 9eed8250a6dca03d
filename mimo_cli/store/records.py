"""StoreRecords: the experts of a packed store, which are stored as they are computed with.

Satisfies the expert store's ExpertRecords: says where in which file a record lies. Nobody reads here.
"""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from mimo_cli.checkpoint.extent import Extent
from mimo_cli.errors import CheckpointError
from mimo_cli.quant.packed import PackedShape
from mimo_cli.store.checksums import StoredChecksums
from mimo_cli.store.manifest import RecordLayout, layer_file


class StoreRecords:
    """Records of a store's folder: one extent each, at a multiple of 4096. `checksums`: None where it has none."""

    is_stored_so = True

    def __init__(self, folder: Path, layout: RecordLayout, checksums: StoredChecksums | None = None) -> None:
        self.folder = folder
        self.layout = layout
        self.up_shape: PackedShape = layout.up_shape
        self.down_shape: PackedShape = layout.down_shape
        self.record_bytes = layout.record_bytes
        self.stored_bytes = layout.record_bytes
        self._checksums = checksums

    def extents(self, layer: int, expert_id: int) -> Sequence[Extent]:
        """Return the one extent of an expert. Raises CheckpointError where there is no such expert."""
        if layer not in self.layout.layers:
            raise CheckpointError(f"the store `{self.folder}` has no experts of layer {layer}")
        if not 0 <= expert_id < self.layout.experts:
            raise CheckpointError(f"layer {layer} of the store `{self.folder}` has no expert {expert_id}")
        return (Extent(self.folder / layer_file(layer), expert_id * self.record_bytes, self.record_bytes),)

    def checksum(self, layer: int, expert_id: int) -> int | None:
        """Return what a record had when it was written; None in a store that was made without checksums."""
        return self._checksums.of(layer, expert_id) if self._checksums else None

    def place(self, layer: int, expert_id: int, parts: Sequence[Tensor], slot: Tensor) -> None:
        """Copy a record into a slot."""
        slot[: self.record_bytes].copy_(parts[0])

    def close(self) -> None:
        """Nothing is held."""
