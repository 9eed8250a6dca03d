"""The memory limit of the control group a process runs in, version 1 or 2: that of a container, a service, a batch job.

A group's limit holds for its children, too, so the tightest one on the way to the root counts.
"""

from dataclasses import dataclass
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_NO_LIMIT = 1 << 60
"""Version 1 writes a number of this order where there is no limit."""


@dataclass(frozen=True)
class MemoryGroup:
    """A group with a limit: bytes allowed, bytes in use, and those of them that are page cache and give way."""

    limit_bytes: int
    used_bytes: int
    cache_bytes: int
    version: int

    @property
    def free_bytes(self) -> int:
        """What can still be had without being stopped."""
        return max(0, self.limit_bytes - self.used_bytes + self.cache_bytes)


def memory_group(root: Path = _CGROUP, membership: Path = _MEMBERSHIP) -> MemoryGroup | None:
    """Return the group that leaves this process least memory; None where no group limits it."""
    groups = [group for folder, version in _folders(root, membership) if (group := _read(folder, version))]
    return min(groups, key=lambda group: group.free_bytes, default=None)


def _folders(root: Path, membership: Path) -> list[tuple[Path, int]]:
    """List the folders of this process's memory groups, up to the root of each hierarchy."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    found: list[tuple[Path, int]] = [(root, 2), (root / "memory", 1)]
    for line in lines:
        number, controllers, path = ([*line.split(":", 2), "", ""])[:3]
        if number == "0":
            found += [(base / part, 2) for base in (root, root / "unified") for part in _ancestry(path)]
        elif "memory" in controllers.split(","):
            found += [(root / "memory" / part, 1) for part in _ancestry(path)]
    return list(dict.fromkeys(found))


def _ancestry(path: str) -> list[str]:
    parts = [part for part in path.split("/") if part]
    return ["/".join(parts[:end]) for end in range(len(parts), -1, -1)]


def _read(folder: Path, version: int) -> MemoryGroup | None:
    # Beyond memory.high nobody is killed, but everything stands still.
    limits = ("memory.max", "memory.high") if version == 2 else ("memory.limit_in_bytes",)
    used_bytes = _number(folder / ("memory.current" if version == 2 else "memory.usage_in_bytes"))
    limit_bytes = min((limit for name in limits if (limit := _number(folder / name)) is not None), default=_NO_LIMIT)
    if used_bytes is None or limit_bytes >= _NO_LIMIT:
        return None
    return MemoryGroup(limit_bytes, used_bytes, _cache_bytes(folder), version)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such group, or "max"
        return None


def _cache_bytes(folder: Path) -> int:
    try:
        fields = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return 0
    total = "total_" if "total_inactive_file" in fields else ""
    return int(fields.get(f"{total}inactive_file", 0)) + int(fields.get(f"{total}active_file", 0))
