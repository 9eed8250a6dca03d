"""DirectFile: one file, read in large parts from the system's cache where it is there, and past the cache where not.

What is read once need not be cached, and reading what is cached past the cache would read the disk for nothing. Loads
nothing large itself: reading may begin before torch and numpy are there.
"""

import ctypes
import errno
import mmap
import os
from pathlib import Path

from mimo_cli.quant.pages import PAGE_BYTES

DIRECT = getattr(os, "O_DIRECT", 0)
_NO_RESERVE = 0x4000  # MAP_NORESERVE of Linux: the mapping is never written


class DirectFile:
    """A file opened twice, a context manager. Several threads may read at a time. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self._cached = os.open(path, os.O_RDONLY)
        self._direct = self._cached
        if DIRECT:
            try:
                self._direct = os.open(path, os.O_RDONLY | DIRECT)
            except OSError as err:
                if err.errno != errno.EINVAL:  # a file system without it
                    os.close(self._cached)
                    raise
        self._view = _map(self._cached)

    def __enter__(self) -> "DirectFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._direct != self._cached:
            os.close(self._direct)
        os.close(self._cached)

    def read(self, offset: int, part: memoryview) -> int:
        """Fill a part of whole pages from a page's begin on; returns the bytes read, fewer at the end of the file."""
        descriptor = self._cached if is_cached(self._view, offset, len(part)) else self._direct
        done = 0
        while done < len(part):
            try:
                count = os.preadv(descriptor, [part[done:]], offset + done)
            except OSError as err:
                if err.errno != errno.EINVAL or descriptor == self._cached:
                    raise
                descriptor = self._cached  # opened past the cache, and not read so: larger blocks, or a strange disk
                continue
            if not count:
                break
            done += count
            if descriptor != self._cached and done % PAGE_BYTES:  # only the end of the file is no whole page
                break
        return done


def _map(descriptor: int) -> mmap.mmap | None:
    """Map a file without reading it, for asking which of its pages are in the cache; None where that is no use."""
    if not DIRECT:
        return None
    try:  # private and writable, since ctypes tells the address of nothing else
        flags = mmap.MAP_PRIVATE | _NO_RESERVE
        return mmap.mmap(descriptor, 0, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    except (OSError, ValueError):
        return None


def is_cached(view: mmap.mmap | None, offset: int, size_bytes: int) -> bool:
    """Tell whether all pages of a part of a mapped file are in the system's cache.

    A read that takes only what is cached would tell, too, but makes the system read ahead into the cache.
    """
    size_bytes = min(size_bytes, len(view) - offset) if view is not None else 0
    if view is None or size_bytes <= 0:
        return False
    pages = ctypes.create_string_buffer(-(-size_bytes // PAGE_BYTES))
    start = ctypes.addressof(ctypes.c_char.from_buffer(view, offset))
    try:
        failed = ctypes.CDLL(None).mincore(ctypes.c_void_p(start), ctypes.c_size_t(size_bytes), pages)
    except (OSError, AttributeError):  # a C library without it
        return False
    return not failed and pages.raw.count(b"\x01") == len(pages.raw)
