"""One packed tensor of a store by its official name: where its bytes lie, and its numbers."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mimo_cli.checkpoint.names import PACKED_SUFFIX
from mimo_cli.errors import CheckpointError
from mimo_cli.quant.direct import decode_streams
from mimo_cli.quant.packed import PackedShape
from mimo_cli.store.emptying import PROJECTIONS
from mimo_cli.store.manifest import RecordLayout, layer_file
from mimo_cli.store.opened import OpenModel

_EXPERT = re.compile(r"model\.layers\.(\d+)\.mlp\.experts\.(\d+)\.(gate_proj|up_proj|down_proj)\.weight")


@dataclass(frozen=True)
class PackedTensor:
    """A matrix as one stream of `shape`, or one of the two that share it (gate and up): `stream` says which.

    file, offset, size_bytes: where the whole stream lies.
    """

    file: Path
    offset: int
    size_bytes: int
    shape: PackedShape
    stream: int = 0

    def numbers(self) -> Tensor:
        """Return float32 [rows, cols]. Raises CheckpointError where the file cannot be read or is cut."""
        try:
            data = np.fromfile(self.file, np.uint8, self.size_bytes, offset=self.offset)
        except OSError as err:
            raise CheckpointError(f"`{self.file}` cannot be read: {err.strerror or err}") from err
        if len(data) < self.size_bytes:
            raise CheckpointError(f"`{self.file}` is truncated: {self.size_bytes:,} bytes expected at {self.offset:,}")
        return decode_streams(torch.from_numpy(data), self.shape)[self.stream]


def packed_tensor(opened: OpenModel, name: str) -> PackedTensor | None:
    """Return a packed tensor of a store; None for names that are tensors of their own, or no tensors at all."""
    manifest = opened.manifest
    if manifest is None:
        return None
    if name in manifest.packed:
        info = opened.index[name + PACKED_SUFFIX]
        return PackedTensor(info.shard, info.offset, info.size_bytes, manifest.packed[name])
    found = _EXPERT.fullmatch(name)
    if found is None or manifest.records is None:
        return None
    return _expert_tensor(opened.folder, manifest.records, int(found[1]), int(found[2]), found[3])


def _expert_tensor(folder: Path, layout: RecordLayout, layer: int, expert: int, projection: str) -> PackedTensor | None:
    if layer not in layout.layers or expert >= layout.experts:
        return None
    start = expert * layout.record_bytes
    up, down = layout.up_shape, layout.down_shape
    if projection == PROJECTIONS[2]:
        return PackedTensor(folder / layer_file(layer), start + up.nbytes, down.nbytes, down)
    return PackedTensor(folder / layer_file(layer), start, up.nbytes, up, PROJECTIONS.index(projection))
