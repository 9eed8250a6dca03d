"""OutputFile: a file that appears under its name only when it is whole and on the disk, with its hash.

Large files go past the system's cache where that is possible: copying them into it costs more than hashing them, and
flushing them at the end would stop the conversion for seconds.
"""

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mimo_cli.checkpoint.shard_writer import disk_error
from mimo_cli.errors import CheckpointError, MimoError
from mimo_cli.quant.buffers import PAGE_BYTES, allocate_bytes
from mimo_cli.store.manifest import FileEntry

try:
    import fcntl
except ImportError:  # not on every system that Python runs on
    fcntl = None  # type: ignore[assignment]

_READ_BYTES = 1 << 22
_STAGE_BYTES = 1 << 23
_HASHED_BESIDE_BYTES = 1 << 20
"""From here on bytes are hashed by another thread while they are written."""

_DIRECT = getattr(os, "O_DIRECT", 0)
PART_PATTERN = ".*.part"


class OutputFile:
    """Writes one file from its first byte to its last; `commit` in the block gives it its name.

    `direct` writes past the system's cache where file system and memory allow it. Leaving the block without `commit`
    removes what was written. Errors of the disk become CapacityError or MimoError.
    """

    def __init__(self, path: Path, *, direct: bool = False) -> None:
        self.path = path
        self.size_bytes = 0
        self._part = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._hash = hashlib.sha256()
        self._hasher = ThreadPoolExecutor(1)
        self._staged = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._part.open("wb", buffering=0)
        except OSError as err:
            raise disk_error(path, err) from err
        self._direct = direct and self._set_direct(True)
        self._stage = memoryview(allocate_bytes(_STAGE_BYTES).numpy().data) if self._direct else memoryview(b"")

    def __enter__(self) -> "OutputFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._hasher.shutdown()
        self._file.close()
        self._part.unlink(missing_ok=True)  # gone already if committed

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes; they may be changed again when this returns."""
        left = memoryview(data).cast("B")
        self.size_bytes += len(left)
        hashing: Future[None] | None = None
        if len(left) >= _HASHED_BESIDE_BYTES:
            hashing = self._hasher.submit(self._hash.update, left)
        else:
            self._hash.update(left)
        try:
            self._append(left)
        except OSError as err:
            raise disk_error(self.path, err) from err
        finally:
            if hashing:
                hashing.result()

    def commit(self) -> FileEntry:
        """Flush to the disk and give the file its name; returns its size and hash."""
        try:
            self._flush_stage()
            os.fsync(self._file.fileno())
            self._file.close()
            self._part.replace(self.path)
            sync_folder(self.path.parent)
        except OSError as err:
            raise disk_error(self.path, err) from err
        return FileEntry(self.size_bytes, self._hash.hexdigest())

    def _append(self, left: memoryview) -> None:
        if not self._direct:
            self._flush_stage()
            self._write_all(left)
            return
        if not self._staged and len(left) % PAGE_BYTES == 0 and _address(left) % PAGE_BYTES == 0:
            self._write_all(left)
            return
        while left:
            count = min(len(left), _STAGE_BYTES - self._staged)
            self._stage[self._staged : self._staged + count] = left[:count]
            self._staged += count
            left = left[count:]
            if self._staged == _STAGE_BYTES:
                self._staged = 0
                self._write_all(self._stage)

    def _flush_stage(self) -> None:
        if self._staged:
            count, self._staged = self._staged, 0
            self._write_all(self._stage[:count])

    def _write_all(self, left: memoryview) -> None:
        while left:
            if self._direct and (len(left) % PAGE_BYTES or _address(left) % PAGE_BYTES):
                self._direct = self._set_direct(False)  # the end of a file is no whole page
            try:
                written = write_some(self._file.fileno(), left)
            except OSError as err:
                if err.errno != errno.EINVAL or not self._direct:
                    raise
                self._direct = self._set_direct(False)  # a file system that promised more than it does
                continue
            if not written:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            left = left[written:]

    def _set_direct(self, wanted: bool) -> bool:
        """Switch writes past the cache on or off; returns whether they are on."""
        if not _DIRECT or fcntl is None:
            return False
        descriptor = self._file.fileno()
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | _DIRECT if wanted else flags & ~_DIRECT)
        except OSError:
            return False
        return wanted


def write_some(descriptor: int, data: memoryview) -> int:
    """Write what the system takes at once; the one place where a store's bytes leave."""
    return os.write(descriptor, data)


def sync_folder(folder: Path) -> None:
    """Make a rename in a folder last, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_entry(path: Path) -> FileEntry:
    """Read a file for its size and hash. Raises CheckpointError where it cannot be read."""
    digest, size_bytes = hashlib.sha256(), 0
    try:
        with path.open("rb", buffering=0) as file:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
            block = memoryview(bytearray(_READ_BYTES))  # used again: new memory for each read would cost as much
            while count := file.readinto(block):
                digest.update(block[:count])
                size_bytes += count
    except OSError as err:
        raise CheckpointError(f"`{path}` cannot be read: {err.strerror or err}") from err
    return FileEntry(size_bytes, digest.hexdigest())


def file_entries(paths: Iterable[Path]) -> Iterator[FileEntry]:
    """Read files for their sizes and hashes, several at a time; yields them in order."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        yield from pool.map(file_entry, paths)


def _address(data: memoryview) -> int:
    return np.frombuffer(data, np.uint8).ctypes.data if len(data) else 0


def remove_parts(folder: Path) -> None:
    """Remove what a killed run left half written."""
    for path in folder.rglob(PART_PATTERN):
        try:
            path.unlink(missing_ok=True)
        except OSError as err:
            raise MimoError(f"`{path}` cannot be removed: {err.strerror or err}") from err
