"""What process and machine say about memory: the peak of resident bytes, the bytes still to be had.

Linux tells through /proc and cgroups; elsewhere psutil and getrusage give the same figures, less finely.
"""

import resource
import sys
from pathlib import Path

import psutil

from mimo_cli.engine.cgroup import memory_group

_STATUS = Path("/proc/self/status")
_CGROUP = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def peak_rss_bytes() -> int:
    """Return the largest resident memory of this process so far, or since `reset_peak_rss`."""
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    unit_bytes = 1 if sys.platform == "darwin" else 1024  # getrusage counts kB on Linux, bytes on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes


def reset_peak_rss() -> bool:
    """Start a new peak at the present size; returns False where the system cannot (the old peak then stays)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def rss_bytes() -> int:
    """Return the memory that this process holds now."""
    return int(psutil.Process().memory_info().rss)


def machine_bytes() -> int:
    """Return the memory of the machine, or what the container is allowed."""
    group = memory_group(_CGROUP, _MEMBERSHIP)
    total = int(psutil.virtual_memory().total)
    return min(total, group.limit_bytes) if group else total


def available_bytes() -> int:
    """Return the memory that can be had without swapping: the machine's, or what the container's limit leaves.

    Page cache counts as used in a control group but gives way: it is no reason to refuse a model.
    """
    machine = int(psutil.virtual_memory().available)
    group = memory_group(_CGROUP, _MEMBERSHIP)
    return min(machine, group.free_bytes) if group else machine
