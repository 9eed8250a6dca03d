"""Reading large parts of a file into memory of their own at the rate of the disk: several large reads at a time.

A part that the system still has in its cache is copied from there; anything else is read past the cache (O_DIRECT),
which would only hold a second copy of what is read once. Memory may have huge pages. What was read early is there.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from mimo_cli.checkpoint import early_read
from mimo_cli.checkpoint.direct_file import DirectFile
from mimo_cli.errors import CheckpointError
from mimo_cli.quant.buffers import allocate_bytes
from mimo_cli.quant.pages import HUGE_PAGE_BYTES, PAGE_BYTES, round_up

CHUNK_BYTES = HUGE_PAGE_BYTES
"""Bytes per read. The system clears a huge page before a read fills it: smaller reads let others go on meanwhile."""

_READERS = 4
_AGAIN = "check the disk, or copy or fetch that file again"
_LINE_BYTES = 64


def read_bytes(path: Path, offset: int, size_bytes: int) -> Tensor | None:
    """Return a part of a file as uint8 [size_bytes] in new memory, at a multiple of 64.

    None where the system cannot read so, or the part does not begin at a multiple of 64 (whoever asks then has another
    way). Raises CheckpointError where the file cannot be read or ends too early.
    """
    if not hasattr(os, "preadv") or offset % _LINE_BYTES:
        return None
    early = early_read.take(path, offset, size_bytes)
    if early is not None:
        return torch.frombuffer(early[0], dtype=torch.uint8)[early[1] : early[1] + size_bytes]
    begin = offset // PAGE_BYTES * PAGE_BYTES
    end = offset + size_bytes
    memory = allocate_bytes(round_up(end - begin, PAGE_BYTES))
    try:
        with DirectFile(path) as file, ThreadPoolExecutor(_READERS) as pool:
            starts = range(begin, end, CHUNK_BYTES)
            target = memoryview(memory.numpy().data)
            parts = (target[start - begin : start - begin + CHUNK_BYTES] for start in starts)
            found = sum(pool.map(file.read, starts, parts))
    except OSError as err:
        raise CheckpointError(f"`{path}` cannot be read: {err.strerror or err}", hint=_AGAIN) from err
    if begin + found < end:
        raise CheckpointError(f"`{path}` is truncated: {end:,} bytes expected, {begin + found:,} found", hint=_AGAIN)
    return memory[offset - begin : end - begin]
