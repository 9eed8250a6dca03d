"""Early reading: the packed matrices of a store go into their memory while the libraries are still being loaded.

    begin(folder)                threads read, the program imports torch
    take(path, offset, size)     loading asks for a part: it is there, or soon

Loads nothing large itself. Whatever goes wrong here is not reported: the part is read again where it is needed, and
that says what is wrong.
"""

import json
import mmap
import threading
from collections import deque
from pathlib import Path

from mimo_cli.checkpoint.direct_file import DirectFile
from mimo_cli.quant.pages import PAGE_BYTES, map_pages, round_up

STORE_FILE = "mimo_store.json"
"""Tells a packed store; what else it says does not matter here."""

PIECE_BYTES = 16 << 20
"""Bytes per read: between two of them a reader waits for the interpreter, which an import holds for 5 ms at a time."""

LEAST_BYTES = 1 << 22
"""What is smaller is not read by large reads."""

_READERS = 2
_PACKED = ".packed"
_LATER = "model.mtp."
"""Matrices that are loaded only when they are first used."""

_parts: dict[tuple[str, int, int], "_Part"] = {}


class _Part:
    """Memory for a part of a file from the begin of a page on; pieces of it are read by several threads."""

    def __init__(self, path: Path, offset: int, size_bytes: int) -> None:
        self.path = path
        self.begin = offset // PAGE_BYTES * PAGE_BYTES
        self.needed_bytes = offset + size_bytes - self.begin
        self.size_bytes = round_up(self.needed_bytes, PAGE_BYTES)
        self.memory, self.start = map_pages(self.size_bytes)
        self.pieces = deque(range(0, self.size_bytes, PIECE_BYTES))
        self.left = len(self.pieces)
        self.found_bytes = 0
        self.is_unwanted = False
        self.is_over = threading.Event()
        self.lock = threading.Lock()

    def read_piece(self, at: int, file: DirectFile) -> None:
        found = 0
        try:
            if not self.is_unwanted:
                end = min(at + PIECE_BYTES, self.size_bytes)
                view = memoryview(self.memory)[self.start + at : self.start + end]
                found = file.read(self.begin + at, view)
        except Exception:  # whatever it is: read again, it is reported; and whoever waits must not wait for ever
            found = 0
        with self.lock:
            self.found_bytes += found
            self.left -= 1
            if not self.left:
                self.is_over.set()


def begin(folder: Path, limit_bytes: int) -> None:
    """Begin to read the packed matrices of a store, if they take at most so many bytes of memory. Returns at once."""
    try:
        if not (folder / STORE_FILE).is_file():
            return
        shards = sorted(folder.glob("*.safetensors"))
        wanted = [(path, offset, size) for path in shards for offset, size in _packed_places(path)]
        if sum(size_bytes for _, _, size_bytes in wanted) > limit_bytes:
            return
        parts = [_Part(*place) for place in wanted]
        files = {path: DirectFile(path) for path in {path for path, _, _ in wanted}}
        queue = deque((part, at) for part in parts for at in part.pieces)
        for _ in range(_READERS):
            threading.Thread(target=_read, args=(queue, files, parts), name="mimo-early-read", daemon=True).start()
    except Exception:  # a damaged header may be anything: the check that follows names it
        return
    for (path, offset, size_bytes), part in zip(wanted, parts, strict=True):
        _parts[str(path), offset, size_bytes] = part


def take(path: Path, offset: int, size_bytes: int) -> tuple[mmap.mmap, int] | None:
    """Return memory in which a part of a file stands, and where; waits for it. None where it was not read whole.

    Who takes a part owns its memory.
    """
    part = _parts.pop((str(path), offset, size_bytes), None)
    if part is None:
        return None
    part.is_over.wait()
    if part.found_bytes < part.needed_bytes:
        return None
    return part.memory, part.start + offset - part.begin


def held_bytes() -> int:
    """Return the memory that is filled already with what nobody has taken yet."""
    return sum(part.found_bytes for part in _parts.values())


def forget() -> None:
    """Give back what nobody took, and read no more of it."""
    for part in _parts.values():
        part.is_unwanted = True
    _parts.clear()


def _packed_places(path: Path) -> list[tuple[int, int]]:
    """Return offset and size of the packed matrices that loading reads, in the order of the file."""
    with path.open("rb") as file:
        head_bytes = int.from_bytes(file.read(8), "little")
        head = json.loads(file.read(head_bytes)) if head_bytes < 1 << 27 else {}
    places = []
    for name, entry in head.items():
        if name.endswith(_PACKED) and not name.startswith(_LATER):
            first, last = entry["data_offsets"]
            places.append((8 + head_bytes + int(first), int(last) - int(first)))
    return sorted(place for place in places if place[1] >= LEAST_BYTES)


def _read(queue: deque[tuple[_Part, int]], files: dict[Path, DirectFile], parts: list[_Part]) -> None:
    while True:
        try:
            part, at = queue.popleft()
        except IndexError:
            break
        part.read_piece(at, files[part.path])
    if all(part.is_over.is_set() for part in parts):  # then no other thread reads any more
        for path in list(files):
            file = files.pop(path, None)  # whoever takes it closes it
            if file is not None:
                file.close()
