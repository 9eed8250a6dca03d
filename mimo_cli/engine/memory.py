"""What process and machine say about memory: the peak of resident bytes, the bytes still to be had.

Linux tells through /proc and cgroups; elsewhere psutil and getrusage give the same figures, less finely.
"""

import resource
import sys
from pathlib import Path

import psutil

_STATUS = Path("/proc/self/status")
_CGROUP = Path("/sys/fs/cgroup")


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


def available_bytes() -> int:
    """Return the memory that can be had without swapping: the machine's, or what the container's limit leaves."""
    machine = psutil.virtual_memory().available
    try:
        limit_bytes = int((_CGROUP / "memory.max").read_text())
        used_bytes = int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):  # no cgroup, or "max"
        return machine
    # Page cache counts as used in a cgroup but gives way: it is no reason to refuse a model.
    return min(machine, max(0, limit_bytes - used_bytes + _reclaimable_bytes()))


def _reclaimable_bytes() -> int:
    try:
        fields = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return 0
    return int(fields.get("inactive_file", 0)) + int(fields.get("active_file", 0))
