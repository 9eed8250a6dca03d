"""`experts.crc32`: the CRC-32 of every record of a packed store, as it was when the store was made.

Little-endian numbers of 32 bits: those of the first layer with experts in the order of experts, then the next layer's.
The hashes of the manifest are those of whole files; with these a reader can check the one record that it needs.
"""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mimo_cli.errors import CheckpointError
from mimo_cli.store.manifest import RecordLayout, layer_file

CHECKSUM_FILE = "experts.crc32"
_CHECKSUM = np.dtype("<u4")


def checksum_bytes(layout: RecordLayout) -> int:
    """Return the length of the file."""
    return len(layout.layers) * layout.experts * _CHECKSUM.itemsize


def encode_checksums(by_layer: Sequence[Sequence[int]]) -> bytes:
    """Return the content of the file."""
    return np.array(by_layer, _CHECKSUM).tobytes()


def layer_checksums(folder: Path, layout: RecordLayout, layer: int) -> tuple[int, ...]:
    """Read the records of a layer and return what they have. Raises CheckpointError where they cannot be read."""
    path = folder / layer_file(layer)
    found = []
    try:
        with path.open("rb", buffering=0) as file:
            record = bytearray(layout.record_bytes)
            for _ in range(layout.experts):
                if file.readinto(record) != len(record):
                    raise CheckpointError(f"`{path}` is truncated: {layout.experts} records expected")
                found.append(zlib.crc32(record))
    except OSError as err:
        raise CheckpointError(f"`{path}` cannot be read: {err.strerror or err}") from err
    return tuple(found)


class StoredChecksums:
    """The checksums of a finished store, read at the first use."""

    def __init__(self, folder: Path, layout: RecordLayout) -> None:
        self._path = folder / CHECKSUM_FILE
        self._layout = layout
        self._rows: list[list[int]] | None = None

    def of(self, layer: int, expert_id: int) -> int:
        """Return the checksum of a record. Raises CheckpointError for a file that is gone or of another length."""
        if self._rows is None:
            try:
                data = self._path.read_bytes()
            except OSError as err:
                raise CheckpointError(f"`{self._path}` cannot be read: {err.strerror or err}") from err
            if len(data) != checksum_bytes(self._layout):
                raise CheckpointError(
                    f"`{self._path}` has {len(data):,} bytes, {checksum_bytes(self._layout):,} expected",
                    hint="copy that file again, or make the store again with `mimo quantize`",
                )
            shape = len(self._layout.layers), self._layout.experts
            self._rows = np.frombuffer(data, _CHECKSUM).reshape(shape).tolist()
        return self._rows[self._layout.layers.index(layer)][expert_id]
