"""What this machine gives, as far as a second can tell: memory by reading some of it, the rest by what is usual.

The plan's `--measure` does better; this is what a forecast without it rests on, and it says so.
"""

import time
from pathlib import Path

import numpy as np
import psutil
import torch

from mimo_cli.engine.disk_probe import USUAL_GBPS, DiskKind, DiskRate, disk_kind
from mimo_cli.engine.memory import available_bytes
from mimo_cli.engine.speed_model import Rates, Span
from mimo_cli.offload.budget import RamSetting
from mimo_cli.quant.buffers import allocate_bytes
from mimo_cli.quant.kernels import Kernels, load_kernels

PROBE_BYTES = 384 << 20
"""More than the caches of one processor hold."""

_GMACS_PER_THREAD = {"avx512": Span(35.0, 130.0), "avx2": Span(12.0, 45.0), "torch": Span(3.0, 20.0)}
"""Kernels with 16 tokens for each expert, 24-bit and 8-bit activations (docs/performance.md)."""

_SPREAD = 0.15
"""A single probe of a rate is right to about this share."""


def rates_here(folder: Path, threads: int | None = None) -> tuple[Rates, str]:
    """Return what this machine gives to models in a folder, and in words what that rests on."""
    kind = disk_kind(folder)
    rates = machine_rates(load_kernels(threads or torch.get_num_threads()), kind)
    return rates, f"memory read for a moment, a disk as they usually are ({kind}); --measure tells more"


def planned_ram_bytes(given: RamSetting | int | None) -> int:
    """Return the memory to plan for. A size may be that of another machine; shares and nothing are this one's."""
    setting = given if isinstance(given, RamSetting) else RamSetting(size_bytes=given)
    if setting.size_bytes is not None:
        return setting.size_bytes
    machine_bytes = psutil.virtual_memory().total
    return setting.total_bytes(machine_bytes if setting.share else available_bytes(), machine_bytes)


def machine_rates(kernels: Kernels | None, disk: DiskKind | DiskRate) -> Rates:
    """Return the rates of this machine; `disk` is a probe of it, or its kind."""
    threads = kernels.threads if kernels else torch.get_num_threads()
    per_thread = _GMACS_PER_THREAD[kernels.isa if kernels else "torch"]
    gbps = memory_gbps(kernels)
    if isinstance(disk, DiskRate):
        disk_gbps = around(disk.gbps)
    else:
        disk_gbps = Span(*USUAL_GBPS[disk])
    share = Span(0.5, 0.9) if kernels else Span(0.05, 0.3)
    return Rates(around(gbps), disk_gbps, share, gmacs=Span(per_thread.low * threads, per_thread.high * threads))


def memory_gbps(kernels: Kernels | None, rounds: int = 3) -> float:
    """Read memory a few times, by one thread and by all; returns the best rate in GB/s."""
    data = allocate_bytes(PROBE_BYTES).fill_(1)
    best_s = float("inf")
    for _ in range(rounds):
        for threads in {1, kernels.threads} if kernels else {1}:
            started = time.perf_counter()
            if kernels:
                kernels.read_probe(data, threads)
            else:
                np.add.reduce(data.numpy().view(np.uint64))
            best_s = min(best_s, time.perf_counter() - started)
    return data.nbytes / best_s / 1e9


def around(value: float, spread: float = _SPREAD) -> Span:
    """Return a range about a value that was measured once."""
    return Span(value * (1 - spread), value * (1 + spread))
