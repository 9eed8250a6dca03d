"""Page-aligned memory from the system, advised to huge pages where it is large. Loads nothing large itself."""

import ctypes
import mmap

PAGE_BYTES = 4096
HUGE_PAGE_BYTES = 1 << 21
_PRIVATE = hasattr(mmap, "MAP_PRIVATE")


def map_pages(nbytes: int) -> tuple[mmap.mmap, int]:
    """Return a mapping of zeros, and where in it `nbytes` (at least one) begin at a multiple of 4096.

    From 2 MiB on it is a multiple of 2 MiB, advised to huge pages. Memory is taken page by page as it is first written;
    the bytes up to the next multiple of 4096 are there too. Raises MemoryError.
    """
    is_large = nbytes >= HUGE_PAGE_BYTES
    alignment = HUGE_PAGE_BYTES if is_large else PAGE_BYTES
    size = round_up(nbytes, PAGE_BYTES) + (alignment if is_large else 0)
    try:  # private: Python's default is shared memory, which Linux backs with huge pages almost nowhere
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) if _PRIVATE else mmap.mmap(-1, size)
    except OSError as err:
        raise MemoryError(f"{nbytes} bytes") from err
    if is_large and hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory, -ctypes.addressof(ctypes.c_char.from_buffer(memory)) % alignment


def page_bytes(nbytes: int) -> memoryview:
    """Return such memory, written once: memory that was never written is not there yet."""
    memory, start = map_pages(nbytes)
    view = memoryview(memory)[start : start + nbytes]
    for page in range(0, nbytes, PAGE_BYTES):
        view[page] = 0
    return view


def round_up(number: int, multiple: int) -> int:
    """Return the smallest multiple that is not below a number."""
    return -(-number // multiple) * multiple
