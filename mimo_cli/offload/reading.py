"""How experts are read: past the system's cache or through it, by how many threads, checked or not.

Which way is faster is found by reading some experts both ways, once for each file system; the answer is remembered in a
small file beside the program's other caches.
"""

import json
import os
import random
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from mimo_cli.checkpoint.extent import Extent
from mimo_cli.errors import CheckpointError
from mimo_cli.offload.expert_records import ExpertRecords
from mimo_cli.offload.extent_reader import ExtentReader, IOMode, ReadAt, Scratch, read_bytes
from mimo_cli.offload.read_pool import DEFAULT_THREADS
from mimo_cli.offload.record_checks import RecordChecks, files_id
from mimo_cli.offload.record_source import RecordSource

IOChoice: TypeAlias = Literal["auto", "direct", "buffered"]

REMEMBERED_FILE = "disks.json"

_SMALL_BYTES = 64 * 2**20
"""Experts that are fewer bytes in all are read through the cache: they are read once."""

_PROBES = 4
"""Experts read each way, in turn."""

_BUFFERED_GAIN = 1.15
"""Reading through the cache must be so much faster to be chosen: it also takes processor time and memory."""


@dataclass(frozen=True)
class Reading:
    """mode "auto": as the disk likes it. `remember` is the folder of caches (None: nothing is remembered)."""

    mode: IOChoice = "auto"
    threads: int = DEFAULT_THREADS
    verify: bool = False
    remember: Path | None = None
    read_at: ReadAt | None = None


DEFAULT_READING = Reading()


def open_source(records: ExpertRecords, reading: Reading, layers: Sequence[int], experts: int) -> RecordSource:
    """Return what reads the experts of some layers, `experts` in each.

    Raises CheckpointError where the first expert cannot be read.
    """
    checks = RecordChecks.of_files(records, layers, experts, reading.remember) if reading.verify else None
    mode = reading.mode if reading.mode != "auto" else _best_mode(records, reading, layers, experts)
    return RecordSource(records, mode, reading.threads, checks, reading.read_at)


def usage_file(records: ExpertRecords, layers: Sequence[int], reading: Reading) -> Path | None:
    """Return where the popularity of a model's experts is kept from run to run; None where nothing is remembered."""
    if reading.remember is None or not layers or not records.extents(layers[0], 0):
        return None
    # The first experts' files name the model well enough: a wrong guess costs time, and all experts take time to list.
    return reading.remember / f"usage-{files_id(records, layers, 1)}.json"


def _best_mode(records: ExpertRecords, reading: Reading, layers: Sequence[int], experts: int) -> IOMode:
    if not layers or len(layers) * experts * records.stored_bytes <= _SMALL_BYTES:
        return "buffered"
    extents = records.extents(layers[0], 0)
    if not extents:
        return "buffered"
    disk = _disk_id(extents[0].path)
    known = _remembered(reading.remember)
    if disk not in known:
        draw = random.Random(0)
        places = [(draw.choice(layers), draw.randrange(experts)) for _ in range(2 * _PROBES)]
        known[disk] = faster_mode([records.extents(*place) for place in places], reading.read_at)
        _remember(reading.remember, known)
    return known[disk]


def faster_mode(reads: Sequence[Sequence[Extent]], read_at: ReadAt | None = None) -> IOMode:
    """Read some experts in turn past the cache and through it; return the faster way. Every expert is read once."""
    seconds: dict[IOMode, list[float]] = {"direct": [], "buffered": []}
    scratch = Scratch()
    scratch.ensure(max(map(read_bytes, reads), default=0)).zero_()  # else the first read pays for the memory
    modes: tuple[IOMode, IOMode] = ("direct", "buffered")
    readers = [ExtentReader(mode, read_at) for mode in modes]
    try:
        for number, extents in enumerate(reads):
            mode, reader = modes[number % 2], readers[number % 2]
            if mode == "buffered" and not _drop_cached(extents):
                continue  # what memory has says nothing of the disk
            started = time.perf_counter()
            reader.read(extents, scratch)
            seconds[mode].append(time.perf_counter() - started)
    finally:
        for reader in readers:
            reader.close()
    if min(map(len, seconds.values())) == 0:
        return "direct"
    is_faster = statistics.median(seconds["buffered"]) * _BUFFERED_GAIN < statistics.median(seconds["direct"])
    return "buffered" if is_faster else "direct"


def _drop_cached(extents: Sequence[Extent]) -> bool:
    """Take extents out of the system's cache; tell whether that was done, as far as the system says."""
    if not hasattr(os, "posix_fadvise"):
        return True
    for extent in extents:
        try:
            with extent.path.open("rb") as file:
                os.fdatasync(file.fileno())  # what was only just written stays until the disk has it
                os.posix_fadvise(file.fileno(), extent.offset, extent.size_bytes, os.POSIX_FADV_DONTNEED)
                # In the middle: at its ends it may share a large page with what lies beside it, which then stays.
                if _is_cached(file.fileno(), extent.offset + extent.size_bytes // 2):
                    return False
        except OSError:
            return False
    return True


def _is_cached(descriptor: int, offset: int) -> bool:
    if not hasattr(os, "RWF_NOWAIT"):
        return False
    try:
        return os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT) > 0
    except OSError:  # it would have to wait for the disk, or the file system does not know the question
        return False


def _disk_id(path: Path) -> str:
    """Return what names a file system across restarts. Raises CheckpointError where the file is gone."""
    try:
        return f"{os.statvfs(path).f_fsid:x}" if hasattr(os, "statvfs") else path.anchor
    except OSError as err:
        raise CheckpointError(f"`{path}` cannot be read: {err.strerror or err}") from err


def _remembered(folder: Path | None) -> dict[str, IOMode]:
    if folder is None:
        return {}
    try:
        values = json.loads((folder / REMEMBERED_FILE).read_text("utf-8"))
        return {str(disk): mode for disk, mode in values.items() if mode in ("direct", "buffered")}
    except (OSError, ValueError, AttributeError):  # none yet, or damaged: it is measured again
        return {}


def _remember(folder: Path | None, known: dict[str, IOMode]) -> None:
    if folder is None:
        return
    with suppress(OSError):  # a cache that cannot be written is no reason to stop
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{REMEMBERED_FILE}.{os.getpid()}"
        part.write_text(json.dumps(known, indent=1) + "\n", "utf-8")
        part.replace(folder / REMEMBERED_FILE)
