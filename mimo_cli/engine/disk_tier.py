"""The disk tier of a measured slice: what reading reached, beside what plain reads of the same files reach.

GB are 1e9 bytes. The ceiling is measured in the same run, before every repeat.
"""

import statistics
from dataclasses import dataclass

from mimo_cli.engine.bench import Measured
from mimo_cli.engine.disk_experts import expert_files
from mimo_cli.engine.disk_probe import probe_reads
from mimo_cli.engine.engine import Engine
from mimo_cli.engine.stats import ExpertTraffic
from mimo_cli.engine.step_meter import StepMeter
from mimo_cli.offload.expert_store import ExpertStore
from mimo_cli.store.records import StoreRecords

_PROBE_S = 1.0
"""Of plain reads before every repeat."""


@dataclass(frozen=True)
class DiskRow:
    """What the disk tier did while decoding. Rates in GB/s over the time in which a read was under way.

    read_gbps     of the expert store; ceiling_gbps of plain reads of the same files in between
    io_s          seconds of reading for a token, compute_s of everything else, step_s of the token
    wait_share    of a token's time, what computing waits for reads
    """

    read_gbps: float | None
    ceiling_gbps: float
    io_s: float
    compute_s: float
    step_s: float
    wait_share: float

    @property
    def ceiling_share(self) -> float | None:
        """Rate over ceiling."""
        return self.read_gbps / self.ceiling_gbps if self.read_gbps and self.ceiling_gbps else None

    @property
    def overlap(self) -> float | None:
        """A token's time over the longer of reading and computing: 1 where all of the shorter is hidden."""
        longer = max(self.io_s, self.compute_s)
        return self.step_s / longer if longer else None


@dataclass(frozen=True)
class DiskReport:
    """The disk tier of a measurement: budget given, slots for experts, their share of all, how the files are read.

    read_bytes: what the expert store read from the beginning on; probe_bytes: what the ceiling's probes read.
    """

    ram_bytes: int
    slots: int
    resident_share: float
    files_bytes: int
    mode: str
    threads: int
    read_bytes: int = 0
    probe_bytes: int = 0


class DiskCeiling:
    """Plain reads of the very experts that are measured, by as many threads as the expert store has.

    Disks that remember what they gave (every virtual one does) give the same again faster: so the ceiling reads what
    the tokens before it visited, as soon as there were any.
    """

    def __init__(self, stored: StoreRecords, engine: Engine, meter: StepMeter) -> None:
        self._stored = stored
        self._chosen = meter.chosen
        self._threads = engine.experts.source.threads if isinstance(engine.experts, ExpertStore) else 1
        self._gbps: list[float] = []
        self.bytes_read = 0

    def probe(self) -> None:
        """Read for a second; adds one sample."""
        record_bytes = self._stored.record_bytes
        visited = [sorted(self._chosen.get(layer, {})) for layer in self._stored.layout.layers]
        offsets = [[expert * record_bytes for expert in experts] for experts in visited] if any(visited) else None
        files = expert_files(self._stored)
        rate = probe_reads(files, record_bytes, _PROBE_S, self._threads, len(self._gbps), offsets)
        if rate is not None:
            self._gbps.append(rate.gbps)
            self.bytes_read += rate.bytes_read

    @property
    def gbps(self) -> float:
        """The median of the probes so far, 0 before the first."""
        return statistics.median(self._gbps) if self._gbps else 0.0


def disk_report(engine: Engine, stored: StoreRecords | None, ceiling: DiskCeiling | None) -> DiskReport | None:
    """Describe the disk tier of a slice, None where it has none."""
    if stored is None or not isinstance(engine.experts, ExpertStore) or engine.budget is None:
        return None
    layout, budget = stored.layout, engine.budget
    slots = engine.experts.cache.limit
    return DiskReport(
        ram_bytes=budget.total_bytes,
        slots=slots,
        resident_share=slots / (layout.experts * len(layout.layers)),
        files_bytes=layout.file_bytes * len(layout.layers),
        mode=engine.experts.source.mode,
        threads=engine.experts.source.threads,
        read_bytes=engine.experts.counters.disk_bytes,
        probe_bytes=ceiling.bytes_read if ceiling else 0,
    )


def disk_row(measured: Measured, ceiling_gbps: float, decoded: int, decode_s: float) -> DiskRow:
    """Sum up what the disk did for some decoded tokens."""
    traffic = sum((run.stats.decode_experts for run in measured.runs), ExpertTraffic())
    return DiskRow(
        read_gbps=traffic.bytes_read / traffic.read_s / 1e9 if traffic.read_s else None,
        ceiling_gbps=ceiling_gbps,
        io_s=traffic.read_s / decoded,
        compute_s=(decode_s - traffic.wait_s) / decoded,
        step_s=decode_s / decoded,
        wait_share=traffic.wait_s / decode_s if decode_s else 0.0,
    )
