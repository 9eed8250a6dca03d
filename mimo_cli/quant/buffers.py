"""Memory for packed weights: page-aligned bytes that the system may back with huge pages.

A kernel that streams gigabytes spends a good part of its time on address translation where pages are 4 KiB.
"""

import mmap

import torch
from torch import Tensor

from mimo_cli.quant.pages import HUGE_PAGE_BYTES as HUGE_PAGE_BYTES
from mimo_cli.quant.pages import PAGE_BYTES as PAGE_BYTES
from mimo_cli.quant.pages import map_pages
from mimo_cli.quant.pages import round_up as round_up


def allocate_bytes(nbytes: int) -> Tensor:
    """Return uint8 [nbytes] of zeros at a multiple of 4096; from 2 MiB on at one of 2 MiB, advised to huge pages.

    Memory is taken page by page as it is first written, and given back with the last tensor that uses it. The bytes up
    to the next multiple of 4096 belong to the buffer too. Raises MemoryError.
    """
    return allocate_mapped(nbytes)[0] if nbytes else torch.empty(0, dtype=torch.uint8)


def allocate_mapped(nbytes: int) -> tuple[Tensor, mmap.mmap, int]:
    """Return `allocate_bytes` of at least one byte with its mapping, and where in that it begins."""
    memory, start = map_pages(nbytes)
    whole = torch.frombuffer(memory, dtype=torch.uint8)
    return whole[start : start + nbytes], memory, start
