"""Weight files that are kept compressed: `NAME.safetensors.xz`.

Random weights hardly compress as they are. Within a tensor the highest bytes of all its numbers resemble one another,
though, and so do not the lowest: put apart and compressed, two thirds remain. Nothing is lost; unpacking gives the
file byte by byte.
"""

import json
import lzma
import shutil
from pathlib import Path

import numpy as np

from tests.reference.storage import WIDTHS

SUFFIX = ".xz"


def pack(path: Path) -> Path:
    """Write `path` compressed beside it; returns the new file."""
    packed = path.with_name(path.name + SUFFIX)
    packed.write_bytes(lzma.compress(_sort_bytes(path.read_bytes(), apart=True), preset=9 | lzma.PRESET_EXTREME))
    return packed


def unpack(path: Path, target: Path) -> None:
    """Write the file that was packed to `path` to `target`."""
    target.write_bytes(_sort_bytes(lzma.decompress(path.read_bytes()), apart=False))


def copy_set(source: Path, target: Path) -> None:
    """Copy a folder, packed files unpacked."""
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == SUFFIX:
            unpack(path, copy.with_suffix(""))
        else:
            shutil.copyfile(path, copy)


def _sort_bytes(content: bytes, *, apart: bool) -> bytes:
    """Put the first bytes of a tensor's numbers before their second ones, and so on; or back again."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    data = np.frombuffer(content, np.uint8).copy()
    for entry in header.values():
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        width = WIDTHS[entry["dtype"]]
        shape = (-1, width) if apart else (width, -1)
        data[begin:end] = data[begin:end].reshape(shape).T.ravel()
    return data.tobytes()
