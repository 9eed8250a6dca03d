"""Memory for packed weights: page-aligned bytes that the system may back with huge pages.

A kernel that streams gigabytes spends a good part of its time on address translation where pages are 4 KiB.
"""

import mmap

import torch
from torch import Tensor

PAGE_BYTES = 4096
HUGE_PAGE_BYTES = 1 << 21
_PRIVATE = hasattr(mmap, "MAP_PRIVATE")


def allocate_bytes(nbytes: int) -> Tensor:
    """Return uint8 [nbytes] of zeros at a multiple of 4096; from 2 MiB on at one of 2 MiB, advised to huge pages.

    Memory is taken page by page as it is first written, and given back with the last tensor that uses it. The bytes up
    to the next multiple of 4096 belong to the buffer too. Raises MemoryError.
    """
    return allocate_mapped(nbytes)[0] if nbytes else torch.empty(0, dtype=torch.uint8)


def allocate_mapped(nbytes: int) -> tuple[Tensor, mmap.mmap, int]:
    """Return `allocate_bytes` of at least one byte with its mapping, and where in that it begins."""
    is_large = nbytes >= HUGE_PAGE_BYTES
    alignment = HUGE_PAGE_BYTES if is_large else PAGE_BYTES
    size = round_up(nbytes, PAGE_BYTES) + (alignment if is_large else 0)
    try:  # private: Python's default is shared memory, which Linux backs with huge pages almost nowhere
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) if _PRIVATE else mmap.mmap(-1, size)
    except OSError as err:
        raise MemoryError(f"{nbytes} bytes") from err
    if is_large and hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    whole = torch.frombuffer(memory, dtype=torch.uint8)
    start = -whole.data_ptr() % alignment
    return whole[start : start + nbytes], memory, start


def round_up(number: int, multiple: int) -> int:
    """Return the smallest multiple that is not below a number."""
    return -(-number // multiple) * multiple
