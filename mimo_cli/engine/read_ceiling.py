"""ReadCeiling: how fast memory can be read, measured beside what is measured against it.

A plain load of every byte by the kernels' own threads, once by one thread and once by all; the better of the two is the
ceiling, because on some machines one thread reads as fast as several. GB are 1e9 bytes.
"""

import statistics
import time

import torch
from torch import Tensor

from mimo_cli.quant.buffers import allocate_bytes
from mimo_cli.quant.kernels import Kernels


class ReadCeiling:
    """Probes of one piece of memory, uint8. Each probe adds one sample for one thread and one for all threads."""

    def __init__(self, kernels: Kernels, data: Tensor) -> None:
        self._kernels = kernels
        self._data = data
        self._gbps: dict[int, list[float]] = {threads: [] for threads in (1, kernels.threads)}

    @classmethod
    def over(cls, kernels: Kernels, nbytes: int) -> "ReadCeiling":
        """Return probes of new memory in huge pages, written once: pages never written would all be the same zeros."""
        return cls(kernels, allocate_bytes(nbytes).fill_(1))

    @property
    def nbytes(self) -> int:
        """Bytes read by each probe."""
        return self._data.nbytes

    @property
    def gbps(self) -> float:
        """The median of the probes so far, of one thread or of all, whichever is faster (0 before the first)."""
        return max(statistics.median(samples) if samples else 0.0 for samples in self._gbps.values())

    def probe(self) -> float:
        """Read the memory; returns the better rate of this time in GB/s."""
        for threads, samples in self._gbps.items():
            started = time.perf_counter()
            self._kernels.read_probe(self._data, threads)
            samples.append(self._data.nbytes / (time.perf_counter() - started) / 1e9)
        return max(samples[-1] for samples in self._gbps.values())


def as_bytes(table: Tensor) -> Tensor:
    """Return the bytes of a contiguous tensor as uint8 [n], without copying."""
    return table.detach().view(-1).view(torch.uint8)
