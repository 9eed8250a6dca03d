"""Extent: a run of bytes in a file. Those who know files name extents; those who read files know nothing else."""

from pathlib import Path
from typing import NamedTuple


class Extent(NamedTuple):
    """`size_bytes` bytes of a file from `offset` on."""

    path: Path
    offset: int
    size_bytes: int

    @property
    def end(self) -> int:
        """The first byte that no longer belongs."""
        return self.offset + self.size_bytes
