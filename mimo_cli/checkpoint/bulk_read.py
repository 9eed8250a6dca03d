"""Reading large parts of a file into memory of their own at the rate of the disk: several large reads at a time.

A part that the system still has in its cache is copied from there; anything else is read past the cache (O_DIRECT),
which would only hold a second copy of what is read once. Memory may have huge pages.
"""

import ctypes
import errno
import mmap
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mimo_cli.errors import CheckpointError
from mimo_cli.quant.buffers import HUGE_PAGE_BYTES, PAGE_BYTES, allocate_bytes, round_up

CHUNK_BYTES = HUGE_PAGE_BYTES
"""Bytes per read. The system clears a huge page before a read fills it: smaller reads let others go on meanwhile."""

_READERS = 4
_DIRECT = getattr(os, "O_DIRECT", 0)
_LINE_BYTES = 64


def read_bytes(path: Path, offset: int, size_bytes: int) -> Tensor | None:
    """Return a part of a file as uint8 [size_bytes] in new memory, at a multiple of 64.

    None where the system cannot read so, or the part does not begin at a multiple of 64 (whoever asks then has another
    way). Raises CheckpointError where the file cannot be read or ends too early.
    """
    if not hasattr(os, "preadv") or offset % _LINE_BYTES:
        return None
    begin = offset // PAGE_BYTES * PAGE_BYTES
    end = offset + size_bytes
    memory = allocate_bytes(round_up(end - begin, PAGE_BYTES))
    try:
        with _File(path) as file, ThreadPoolExecutor(_READERS) as pool:
            starts = range(begin, end, CHUNK_BYTES)
            target = memoryview(memory.numpy().data)
            parts = (target[start - begin : start - begin + CHUNK_BYTES] for start in starts)
            found = sum(pool.map(file.read, starts, parts))
    except OSError as err:
        raise CheckpointError(f"`{path}` cannot be read: {err.strerror or err}") from err
    if begin + found < end:
        raise CheckpointError(f"`{path}` is truncated: {end:,} bytes expected, {begin + found:,} found")
    return memory[offset - begin : end - begin]


class _File:
    """A file opened twice: through the system's cache, and past it where that is possible."""

    def __init__(self, path: Path) -> None:
        self._cached = os.open(path, os.O_RDONLY)
        self._direct = self._cached
        if _DIRECT:
            try:
                self._direct = os.open(path, os.O_RDONLY | _DIRECT)
            except OSError as err:
                if err.errno != errno.EINVAL:  # a file system without it
                    os.close(self._cached)
                    raise
        self._view = _map(self._cached)

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *_: object) -> None:
        if self._direct != self._cached:
            os.close(self._direct)
        os.close(self._cached)

    def read(self, offset: int, part: memoryview) -> int:
        """Fill a part of whole pages from a page's begin on; returns the bytes read, fewer at the end of the file."""
        descriptor = self._cached if _is_cached(self._view, offset, len(part)) else self._direct
        done = 0
        while done < len(part):
            count = os.preadv(descriptor, [part[done:]], offset + done)
            if not count:
                break
            done += count
            if descriptor == self._direct and done % PAGE_BYTES:  # only the end of the file is no whole page
                break
        return done


def _map(descriptor: int) -> NDArray[np.uint8]:
    """Map a file without reading it, for asking which of its pages are in the cache; empty where that is no use."""
    if not _DIRECT:
        return np.empty(0, np.uint8)
    try:
        return np.frombuffer(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ), np.uint8)
    except (OSError, ValueError):
        return np.empty(0, np.uint8)


def _is_cached(view: NDArray[np.uint8], offset: int, size_bytes: int) -> bool:
    """Tell whether all pages of a part of a mapped file are in the system's cache.

    Reading what is cached past the cache would read the disk for nothing; a read that only takes what is cached makes
    the system read ahead into it.
    """
    size_bytes = min(size_bytes, len(view) - offset)
    if size_bytes <= 0:
        return False
    pages = np.zeros(-(-size_bytes // PAGE_BYTES), np.uint8)
    start = ctypes.c_void_p(view.ctypes.data + offset)
    try:
        failed = ctypes.CDLL(None).mincore(start, ctypes.c_size_t(size_bytes), ctypes.c_void_p(pages.ctypes.data))
    except (OSError, AttributeError):  # a C library without it
        return False
    return not failed and bool((pages & 1).all())
