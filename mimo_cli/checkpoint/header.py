"""The header of one safetensors file, read as the untrusted download it is.

A file is: 8 bytes, little endian, the header's length; the header, one JSON object
`name -> {dtype, shape, data_offsets}` (and `__metadata__`); then the tensors' bytes, without holes or overlaps.
Every number is checked before anything uses it. No tensor is read here.
"""

import math
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mimo_cli.checkpoint.untrusted import list_some, parse_json_object, shorten
from mimo_cli.errors import CheckpointError
from mimo_cli.units import format_bytes

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Stored dtypes that are implemented, by the format's names; others (F8_E5M2, F4 ...) are refused by name."""

_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000
"""The format's own limit; 160,000 tensors need about 25 MB."""
_MAX_RANK = 8
_REFETCH = "the download is incomplete or damaged; fetch that shard again"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where one stored tensor lies: `offset` and `size_bytes` count bytes of the file `shard`.

    `stored_dtype` is the file's own word for `dtype` (`BF16`, `F8_E4M3`).
    """

    name: str
    stored_dtype: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    shard: Path
    offset: int
    size_bytes: int


@dataclass(frozen=True)
class ShardHeader:
    """One file's tensors by name, its size, and its free text metadata."""

    path: Path
    file_bytes: int
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, Any]


def read_header(path: Path, file_bytes: int | None = None) -> ShardHeader:
    """Read and check the header of a safetensors file.

    `file_bytes` is the size the file had, where only its header is left; by default its size now.

    Raises CheckpointError naming the file and what is wrong with it: missing, no regular file, not safetensors,
    truncated (with the tensors that are cut), a dtype that is not implemented, or byte ranges that do not match the
    shapes, overlap or leave holes.
    """
    text, size_bytes = _read_json_part(path)
    file_bytes = size_bytes if file_bytes is None else file_bytes
    header = parse_json_object(text, f"the header of `{path.name}`")
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict):
        raise CheckpointError(
            f"`{path.name}`: `__metadata__` must be an object, found {shorten(metadata)}", hint=_REFETCH
        )
    data_start = _LENGTH_BYTES + len(text)
    tensors = {name: _tensor_info(path, name, entry, data_start) for name, entry in header.items()}
    _check_layout(path, tensors, data_start, file_bytes)
    return ShardHeader(path, file_bytes, tensors, metadata)


def _read_json_part(path: Path) -> tuple[bytes, int]:
    """Return the header's bytes and the size of the file in bytes."""
    try:
        status = path.stat()  # follows links: download caches link to their blobs
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError(f"`{path}` is not a regular file")
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            if status.st_size < _LENGTH_BYTES or length > _MAX_HEADER_BYTES:
                raise CheckpointError(f"`{path.name}` is not a safetensors file: no sane header length", hint=_REFETCH)
            text = file.read(length)
    except FileNotFoundError:
        raise CheckpointError(
            f"shard `{path}` is missing", hint="fetch that shard; the download is incomplete"
        ) from None
    except OSError as err:
        raise CheckpointError(f"`{path}` cannot be read: {err.strerror or err}") from err
    if len(text) < length:
        raise CheckpointError(
            f"`{path.name}` is truncated inside its header: {length} bytes expected, {len(text)} found",
            hint=_REFETCH,
        )
    return text, status.st_size


def _tensor_info(path: Path, name: str, entry: Any, data_start: int) -> TensorInfo:
    where = f"tensor `{shorten(name)}` in `{path.name}`"
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise CheckpointError(f"{where} has no dtype, shape and data_offsets", hint=_REFETCH)
    dtype = DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise CheckpointError(
            f"{where} is stored as {shorten(entry['dtype'])}, which is not implemented (known: {', '.join(DTYPES)})"
        )
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _is_counts(shape) or len(shape) > _MAX_RANK:
        raise CheckpointError(f"{where} has the impossible shape {shorten(shape)}", hint=_REFETCH)
    if not _is_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise CheckpointError(f"{where} has the impossible byte range {shorten(offsets)}", hint=_REFETCH)
    size_bytes = math.prod(shape) * dtype.itemsize
    if offsets[1] - offsets[0] != size_bytes:
        raise CheckpointError(
            f"{where}: shape {shorten(shape)} of {entry['dtype']} needs {size_bytes} bytes, "
            f"its byte range holds {offsets[1] - offsets[0]}",
            hint=_REFETCH,
        )
    return TensorInfo(name, entry["dtype"], dtype, tuple(shape), path, data_start + offsets[0], size_bytes)


def _is_counts(value: Any) -> bool:
    """Tell whether a value is a list of whole numbers that are not negative and fit 63 bits."""
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 63 for item in value)


def _check_layout(path: Path, tensors: Mapping[str, TensorInfo], data_start: int, file_bytes: int) -> None:
    """Refuse overlaps, holes, and a file that is shorter or longer than its tensors."""
    end = data_start
    for info in sorted(tensors.values(), key=lambda info: (info.offset, info.size_bytes)):
        if info.offset != end:
            kind = "overlaps the tensor before it" if info.offset < end else "leaves a hole before it"
            raise CheckpointError(
                f"tensor `{shorten(info.name)}` in `{path.name}` {kind}: byte {end} expected, {info.offset} found",
                hint=_REFETCH,
            )
        end = info.offset + info.size_bytes
    if end > file_bytes:
        cut = [info.name for info in tensors.values() if info.offset + info.size_bytes > file_bytes]
        raise CheckpointError(
            f"`{path.name}` is truncated: {format_bytes(end)} expected, {format_bytes(file_bytes)} found; "
            f"it cuts {list_some(cut)}",
            hint=_REFETCH,
        )
    if end < file_bytes:
        raise CheckpointError(
            f"`{path.name}` has {file_bytes - end} bytes after its last tensor: {end} expected, {file_bytes} found",
            hint=_REFETCH,
        )
