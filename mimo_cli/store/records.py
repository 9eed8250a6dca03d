"""StoreRecords: the experts of a packed store, one read each.

Satisfies the expert store's ExpertRecords. Files stay open; a record goes straight from the file into its slot.
"""

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from torch import Tensor

from mimo_cli.errors import CheckpointError
from mimo_cli.quant.packed import PackedShape
from mimo_cli.store.manifest import RecordLayout, layer_file


class StoreRecords:
    """Reads records of a store's folder through the system's cache. (Reads past it, several at a time, belong here.)"""

    def __init__(self, folder: Path, layout: RecordLayout) -> None:
        self.folder = folder
        self.layout = layout
        self.up_shape: PackedShape = layout.up_shape
        self.down_shape: PackedShape = layout.down_shape
        self.record_bytes = layout.record_bytes
        self.stored_bytes = layout.record_bytes
        self._files: dict[int, BinaryIO] = {}
        self._lock = threading.Lock()

    def read(self, layer: int, expert_ids: Sequence[int], slots: Sequence[Tensor]) -> None:
        """Fill slots, uint8 [record_bytes] each. Raises CheckpointError naming expert, layer and file."""
        descriptor = self._open(layer).fileno()
        for expert_id, slot in zip(expert_ids, slots, strict=True):
            if not 0 <= expert_id < self.layout.experts:
                raise CheckpointError(f"layer {layer} has no expert {expert_id}")
            self._fill(descriptor, layer, expert_id, memoryview(slot.numpy().data))

    def close(self) -> None:
        """Close the files; they are opened again when needed."""
        with self._lock:
            while self._files:
                self._files.popitem()[1].close()

    def _open(self, layer: int) -> BinaryIO:
        with self._lock:
            if layer not in self._files:
                if layer not in self.layout.layers:
                    raise CheckpointError(f"the store `{self.folder}` has no experts of layer {layer}")
                path = self.folder / layer_file(layer)
                try:
                    self._files[layer] = path.open("rb", buffering=0)
                except OSError as err:
                    raise CheckpointError(f"`{path}` cannot be read: {err.strerror or err}") from err
            return self._files[layer]

    def _fill(self, descriptor: int, layer: int, expert_id: int, slot: memoryview) -> None:
        name, done = layer_file(layer), 0
        while done < self.record_bytes:
            try:
                count = os.preadv(descriptor, [slot[done:]], expert_id * self.record_bytes + done)
            except OSError as err:
                raise CheckpointError(
                    f"expert {expert_id} of layer {layer} cannot be read from `{name}`: {err.strerror or err}"
                ) from err
            if not count:
                raise CheckpointError(
                    f"expert {expert_id} of layer {layer} is truncated in `{name}`: "
                    f"{self.record_bytes:,} bytes expected, {done:,} found",
                    hint="copy that file again, or make the store again with `mimo quantize`",
                )
            done += count
