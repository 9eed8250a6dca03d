"""OffloadCounters: what the expert store did since it was opened. Plain numbers, for reports and for the planner.

Take two with `snapshot` and subtract them for what happened between.
"""

from dataclasses import dataclass, fields, replace


@dataclass
class OffloadCounters:
    """Sums since the start. An expert asked for by a step counts once, however many of its tokens go there.

    hits, misses       experts found in memory, and those that had to be read; one that was read ahead and had arrived
                       when it was asked for is a hit
    prefetched         experts read ahead of a step; `used_prefetch` of them were asked for afterwards,
                       `wasted_prefetch` left again without having been used
    evictions          experts that left to make room
    ram_bytes          record bytes of the hits: what memory served
    disk_bytes         bytes read from the files, with what alignment adds
    read_s             seconds in which at least one read was under way
    wait_s             seconds in which computation stood still for a read
    retries            reads that were repeated after a fault
    """

    hits: int = 0
    misses: int = 0
    prefetched: int = 0
    used_prefetch: int = 0
    wasted_prefetch: int = 0
    evictions: int = 0
    ram_bytes: int = 0
    disk_bytes: int = 0
    read_s: float = 0.0
    wait_s: float = 0.0
    retries: int = 0

    @property
    def hit_rate(self) -> float | None:
        """Share found in memory, 0 to 1; None where no expert was needed."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else None

    @property
    def read_gbps(self) -> float | None:
        """1e9 bytes per second while reading; None where nothing was read."""
        return self.disk_bytes / self.read_s / 1e9 if self.read_s else None

    def snapshot(self) -> "OffloadCounters":
        """Return a copy."""
        return replace(self)

    def __sub__(self, earlier: "OffloadCounters") -> "OffloadCounters":
        values = {f.name: getattr(self, f.name) - getattr(earlier, f.name) for f in fields(self)}
        return OffloadCounters(**values)
