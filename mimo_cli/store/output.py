"""OutputFile: a file that appears under its name only when it is whole and on the disk, with its hash."""

import errno
import hashlib
import os
from pathlib import Path

from mimo_cli.checkpoint.shard_writer import disk_error
from mimo_cli.errors import CheckpointError, MimoError
from mimo_cli.store.manifest import FileEntry

_READ_BYTES = 1 << 24
PART_PATTERN = ".*.part"


class OutputFile:
    """Writes one file from its first byte to its last; `commit` in the block gives it its name.

    Leaving the block without `commit` removes what was written. Errors of the disk become CapacityError or MimoError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = 0
        self._part = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._hash = hashlib.sha256()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._part.open("wb", buffering=0)
        except OSError as err:
            raise disk_error(path, err) from err

    def __enter__(self) -> "OutputFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._part.unlink(missing_ok=True)  # gone already if committed

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""
        left = memoryview(data).cast("B")
        self._hash.update(left)
        self.size_bytes += len(left)
        try:
            while left:
                written = write_some(self._file.fileno(), left)
                if not written:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                left = left[written:]
        except OSError as err:
            raise disk_error(self.path, err) from err

    def commit(self) -> FileEntry:
        """Flush to the disk and give the file its name; returns its size and hash."""
        try:
            os.fsync(self._file.fileno())
            self._file.close()
            self._part.replace(self.path)
            sync_folder(self.path.parent)
        except OSError as err:
            raise disk_error(self.path, err) from err
        return FileEntry(self.size_bytes, self._hash.hexdigest())


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
            while block := file.read(_READ_BYTES):
                digest.update(block)
                size_bytes += len(block)
    except OSError as err:
        raise CheckpointError(f"`{path}` cannot be read: {err.strerror or err}") from err
    return FileEntry(size_bytes, digest.hexdigest())


def remove_parts(folder: Path) -> None:
    """Remove what a killed run left half written."""
    for path in folder.rglob(PART_PATTERN):
        try:
            path.unlink(missing_ok=True)
        except OSError as err:
            raise MimoError(f"`{path}` cannot be removed: {err.strerror or err}") from err
