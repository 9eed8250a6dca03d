"""ExtentReader: reads extents of files into memory, past the system's cache or through it, and says what went wrong.

Past the cache (O_DIRECT) the system takes whole blocks of 4096 bytes only: a run of extents is read from the block
where it begins to the block where it ends, and the bytes around it are thrown away. Through the cache, what was read
is given up again at once: experts that are kept are kept by us, not twice. Safe to use from several threads.
"""

import errno
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from torch import Tensor

from mimo_cli.checkpoint.extent import Extent
from mimo_cli.errors import CheckpointError
from mimo_cli.quant.buffers import PAGE_BYTES, allocate_bytes, round_up

IOMode: TypeAlias = Literal["direct", "buffered"]
ReadAt: TypeAlias = Callable[[int, list[memoryview], int], int]
"""Reads from a descriptor into buffers at an offset, as os.preadv does; faults are injected here."""

RETRY_WAITS_S = (0.01, 0.1)
"""After a fault a read is repeated so often, after such pauses."""

_MERGE_GAP_BYTES = 64 * 1024
"""Extents so near to one another are one read: skipping the gap costs more than reading it."""

_HAS_DIRECT = hasattr(os, "O_DIRECT")
_HAS_PREADV = hasattr(os, "preadv")


class ExtentReader:
    """Open files by path. `bytes_read` counts what the system handed over, `retries` what was read again."""

    def __init__(self, mode: IOMode = "buffered", read_at: ReadAt | None = None) -> None:
        self.mode: IOMode = mode if _HAS_DIRECT else "buffered"
        self.bytes_read = 0
        self.retries = 0
        self._read_at = read_at or (os.preadv if _HAS_PREADV else _seek_and_read)
        self._files: dict[Path, tuple[int, bool]] = {}  # descriptor, and whether it goes past the cache
        self._retired: list[int] = []
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close all files; they are opened again when needed."""
        with self._lock:
            descriptors = [descriptor for descriptor, _ in self._files.values()] + self._retired
            self._files.clear()
            self._retired.clear()
        for descriptor in descriptors:
            os.close(descriptor)

    def read(self, extents: Sequence[Extent], scratch: "Scratch") -> list[Tensor]:
        """Return the bytes of some extents, uint8, in memory of `scratch` that holds until its next use.

        Raises CheckpointError naming the file that cannot be read or is too short.
        """
        runs = merge_extents(extents)
        starts = []
        needed = 0
        for run in runs:
            starts.append(needed)
            needed += _span_bytes(run)
        memory = scratch.ensure(needed)
        for run, start in zip(runs, starts, strict=True):
            self._fill(run, memory[start : start + _span_bytes(run)])
        parts = []
        for extent in extents:
            at = next(i for i, run in enumerate(runs) if _contains(run, extent))
            begin = starts[at] + extent.offset - _floor(runs[at].offset)
            parts.append(memory[begin : begin + extent.size_bytes])
        return parts

    def read_record(self, extent: Extent, slot: Tensor) -> None:
        """Read one extent straight into a slot: both begin at a multiple of 4096, and so much is the slot's to its end.

        slot: uint8 [at least the extent, rounded up to 4096].
        """
        self._fill(extent, slot)

    def _fill(self, run: Extent, memory: Tensor) -> None:
        """Read a run, from the block where it begins on, with retries after faults."""
        for wait_s in (*RETRY_WAITS_S, None):
            try:
                return self._read_whole(run, memoryview(memory.numpy().data))
            except OSError as err:
                self._forget(run.path)  # a disk that comes back is found by opening the file again
                if wait_s is None or err.errno in (errno.ENOENT, errno.EACCES):
                    raise CheckpointError(
                        f"`{run.path}` cannot be read at byte {run.offset:,}: {err.strerror or err}",
                        hint="check the disk (dmesg) and that the model's folder is still there",
                    ) from err
                with self._lock:
                    self.retries += 1
                time.sleep(wait_s)

    def _read_whole(self, run: Extent, memory: memoryview) -> None:
        descriptor, is_direct = self._open(run.path)
        first = _floor(run.offset)
        needed, wanted = run.end - first, _span_bytes(run)
        if not is_direct:
            wanted = needed
        done = 0
        while done < needed:
            begin = _floor(done) if is_direct else done  # cut short inside a block: again from the block's beginning
            try:
                count = self._read_at(descriptor, [memory[begin:wanted]], first + begin)
            except OSError as err:
                if not is_direct or err.errno != errno.EINVAL:
                    raise
                descriptor, is_direct = self._reopen_buffered(run.path)  # this file takes no direct reads
                wanted = needed
                continue
            with self._lock:
                self.bytes_read += count
            if begin + count <= done:
                raise CheckpointError(
                    f"`{run.path}` is truncated: {run.end:,} bytes expected, {first + done:,} found",
                    hint="copy that file again, or fetch it again",
                )
            done = begin + count
        if not is_direct and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, first, wanted, os.POSIX_FADV_DONTNEED)

    def _open(self, path: Path) -> tuple[int, bool]:
        with self._lock:
            if path not in self._files:
                self._files[path] = self._opened(path, self.mode == "direct")
            return self._files[path]

    def _opened(self, path: Path, is_direct: bool) -> tuple[int, bool]:
        flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        if is_direct:
            try:
                return os.open(path, flags | os.O_DIRECT), True
            except OSError as err:
                if err.errno != errno.EINVAL:  # this file system does not know O_DIRECT
                    raise
        return os.open(path, flags), False

    def _reopen_buffered(self, path: Path) -> tuple[int, bool]:
        with self._lock:
            held = self._files.get(path)
            if held is None or held[1]:
                self._retire(path)
                self._files[path] = self._opened(path, False)
            return self._files[path]

    def _forget(self, path: Path) -> None:
        """Let the next read open a file anew."""
        with self._lock:
            self._retire(path)

    def _retire(self, path: Path) -> None:
        # The descriptor stays open until `close`: another thread may be reading from it.
        if path in self._files:
            self._retired.append(self._files.pop(path)[0])


class Scratch:
    """Page-aligned memory of one thread that grows to the largest need."""

    def __init__(self) -> None:
        self._memory = allocate_bytes(0)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._memory.nbytes

    def ensure(self, nbytes: int) -> Tensor:
        """Return uint8 [at least nbytes]; what was in it is lost."""
        if self._memory.nbytes < nbytes:
            self._memory = allocate_bytes(round_up(nbytes, PAGE_BYTES))
        return self._memory


def merge_extents(extents: Sequence[Extent]) -> list[Extent]:
    """Return the fewest reads that cover some extents: neighbours of one file are joined."""
    runs: list[Extent] = []
    for extent in sorted(extents):
        last = runs[-1] if runs else None
        if last and last.path == extent.path and extent.offset - last.end <= _MERGE_GAP_BYTES:
            runs[-1] = Extent(last.path, last.offset, max(last.end, extent.end) - last.offset)
        else:
            runs.append(extent)
    return runs


def read_bytes(extents: Sequence[Extent]) -> int:
    """Return the bytes that reading some extents past the cache takes, alignment included."""
    return sum(_span_bytes(run) for run in merge_extents(extents))


def _span_bytes(run: Extent) -> int:
    return round_up(run.end, PAGE_BYTES) - _floor(run.offset)


def _contains(run: Extent, extent: Extent) -> bool:
    return run.path == extent.path and run.offset <= extent.offset and extent.end <= run.end


def _floor(offset: int) -> int:
    return offset // PAGE_BYTES * PAGE_BYTES


def _seek_and_read(descriptor: int, buffers: list[memoryview], offset: int) -> int:
    """Read where the system has no preadv (macOS has pread)."""
    data = os.pread(descriptor, len(buffers[0]), offset)
    buffers[0][: len(data)] = data
    return len(data)
