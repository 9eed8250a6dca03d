"""ShardWriter: one safetensors file, written tensor by tensor in any order, that appears only when it is whole.

Shapes and dtypes are known beforehand, so the header is written first and every tensor goes straight to its place: no
more than one tensor is in memory. The file grows under a temporary name beside its own and is renamed at the end.
"""

import errno
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mimo_cli.checkpoint.header import DTYPES
from mimo_cli.checkpoint.untrusted import list_some
from mimo_cli.errors import CapacityError, CheckpointError, MimoError

DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}

_FILE_ORDER = list(DTYPES)
_ALIGNMENT_BYTES = 8
_METADATA = {"format": "pt"}


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """A tensor that is to be stored, as it is stored."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes in the file."""
        return math.prod(self.shape) * self.dtype.itemsize


class ShardWriter:
    """Writes the planned tensors of one file; use as a context manager, `commit` at the end of its block.

    Leaving the block without `commit` removes the temporary file. Errors of the disk become CapacityError (no space
    left) or MimoError.
    """

    def __init__(self, path: Path, planned: Sequence[PlannedTensor]) -> None:
        self.path = path
        self._part = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._left = {tensor.name: tensor for tensor in planned}
        text, self._offsets, end = _header(planned)
        self._data_start = _ALIGNMENT_BYTES + len(text)
        try:
            self._file = self._part.open("wb")
            self._file.write(len(text).to_bytes(_ALIGNMENT_BYTES, "little") + text)
            self._file.truncate(self._data_start + end)
        except OSError as err:
            self._part.unlink(missing_ok=True)
            raise disk_error(path, err) from err

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._part.unlink(missing_ok=True)  # gone already if committed

    def write(self, name: str, tensor: Tensor) -> None:
        """Write one planned tensor to its place. Raises CheckpointError if it is not as planned or comes twice."""
        planned = self._left.pop(name, None)
        if planned is None or planned.dtype != tensor.dtype or planned.shape != tuple(tensor.shape):
            expected = f"{planned.dtype} {list(planned.shape)}" if planned else "no such tensor, or not twice,"
            found = f"{tensor.dtype} {list(tensor.shape)}"
            raise CheckpointError(f"tensor `{name}` for `{self.path.name}`: {expected} expected, {found} found")
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
        try:
            self._file.seek(self._data_start + self._offsets[name])
            self._file.write(data)
        except OSError as err:
            raise disk_error(self.path, err) from err

    def commit(self) -> None:
        """Flush to the disk and give the file its name. Raises CheckpointError if a planned tensor was not written."""
        if self._left:
            raise CheckpointError(f"`{self.path.name}` lacks {len(self._left)} tensors: {list_some(self._left)}")
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._part.replace(self.path)
        except OSError as err:
            raise disk_error(self.path, err) from err


def shard_layout(planned: Sequence[PlannedTensor], alignment_bytes: int) -> tuple[bytes, list[PlannedTensor]]:
    """Return the first bytes of a file of these tensors, which then follow one after the other, and their order.

    The first tensor begins at a multiple of `alignment_bytes`.
    """
    text, _, _ = _header(planned)
    text += b" " * (-(_ALIGNMENT_BYTES + len(text)) % alignment_bytes)
    return len(text).to_bytes(_ALIGNMENT_BYTES, "little") + text, sorted(planned, key=_file_order)


def _header(planned: Sequence[PlannedTensor]) -> tuple[bytes, dict[str, int], int]:
    """Return the header's JSON, padded, where each tensor begins behind it, and where the last one ends."""
    header: dict[str, object] = {"__metadata__": _METADATA}
    offsets: dict[str, int] = {}
    end = 0
    for tensor in sorted(planned, key=_file_order):
        begin, end = end, end + tensor.size_bytes
        entry = {"dtype": DTYPE_NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
        header[tensor.name] = entry
        offsets[tensor.name] = begin
    text = json.dumps(header, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % _ALIGNMENT_BYTES), offsets, end


def write_json(path: Path, values: Mapping[str, object]) -> None:
    """Write a JSON file atomically, as the release formats it."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(json.dumps(values, indent=2, ensure_ascii=False))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as err:
        part.unlink(missing_ok=True)
        raise disk_error(path, err) from err


def disk_error(path: Path, err: OSError) -> MimoError:
    """Turn an error of the disk into one of ours."""
    if err.errno in (errno.ENOSPC, errno.EDQUOT):
        return CapacityError(f"no space left for `{path}`", hint="free some space, or write to another disk")
    return MimoError(f"`{path}` cannot be written: {err.strerror or err}")


def _file_order(tensor: PlannedTensor) -> tuple[int, int, str]:
    """The format's order: larger elements first (so that all stay aligned), then dtype, then name."""
    return -tensor.dtype.itemsize, _FILE_ORDER.index(DTYPE_NAMES[tensor.dtype]), tensor.name
