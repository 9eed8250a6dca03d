"""How fast a disk gives up records: plain reads of whole records at random places by a few threads, nothing else.

It is the ceiling beside which the expert store's own reads are measured, and what a plan supposes of a disk that was
not measured. Reads go past the system's cache where that is possible (O_DIRECT), else the cache is asked to forget.
GB are 1e9 bytes.
"""

import os
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from mimo_cli.errors import CapacityError, MimoError
from mimo_cli.quant.pages import PAGE_BYTES, page_bytes, round_up

DiskKind: TypeAlias = Literal["NVMe", "SSD", "hard disk", "unknown"]

USUAL_GBPS: dict[DiskKind, tuple[float, float]] = {
    "NVMe": (2.0, 7.0),
    "SSD": (0.4, 0.55),
    "hard disk": (0.08, 0.25),
    "unknown": (0.5, 3.0),
}
"""Reads of 12 MB at random places, as disks of a kind give them: lowest and highest of what is usual."""

THREADS = 6
"""Readers of a probe: disks of every kind are at their best with 4 to 8."""

_WRITE_BYTES = 8 << 20

_SYS_BLOCK = Path("/sys/dev/block")


@dataclass(frozen=True)
class DiskRate:
    """One probe: rate, bytes read, whether past the system's cache, and the median seconds of a single read."""

    gbps: float
    bytes_read: int
    is_direct: bool
    read_s: float


def probe_reads(
    files: Sequence[Path],
    record_bytes: int,
    seconds: float,
    threads: int = THREADS,
    seed: int = 0,
    offsets: Sequence[Sequence[int]] | None = None,
) -> DiskRate | None:
    """Read records of about `record_bytes` at random aligned places of some files for so many seconds.

    offsets: for each file the multiples of 4096 to draw from, instead of all. Returns None where there is no place.
    Raises MimoError where a file cannot be read.
    """
    block = round_up(record_bytes, PAGE_BYTES)
    drawn: list[Sequence[int]] = list(offsets or [])
    if offsets is None:
        drawn = [range(0, path.stat().st_size - block + 1, PAGE_BYTES) for path in files]
    places = [(path, own) for path, own in zip(files, drawn, strict=True) if own]
    if not places:
        return None
    reader = _Reader([path for path, _ in places], block)
    try:
        return reader.run([own for _, own in places], seconds, threads, seed)
    finally:
        reader.close()


def scratch_path(folder: Path) -> Path:
    """Return what this process calls its scratch file in a folder."""
    return folder / f".mimo-probe-{os.getpid()}"


@contextmanager
def scratch_file(folder: Path, size_bytes: int, seconds: float = 60.0) -> Iterator[Path]:
    """Yield a file of random bytes that is gone afterwards; a slow disk gets a smaller one after so many seconds.

    Raises CapacityError where there is no room, MimoError where the disk refuses.
    """
    path = scratch_path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize < 2 * size_bytes:
            raise CapacityError(f"no room to measure the disk of `{folder}`", hint="free some space")
        noise = os.urandom(1 << 20)
        deadline = time.monotonic() + seconds
        with path.open("wb", buffering=0) as file:
            for at in range(0, size_bytes, _WRITE_BYTES):
                file.write((at.to_bytes(8, "little") + noise[8:]) * (_WRITE_BYTES >> 20))
                os.fsync(file.fileno())
                if time.monotonic() > deadline:
                    break
        yield path
    except OSError as err:
        raise MimoError(f"the disk of `{folder}` cannot be measured: {err.strerror or err}") from err
    finally:
        with suppress(OSError):
            path.unlink()


def disk_kind(path: Path) -> DiskKind:
    """Tell what kind of disk a path lies on, as Linux knows it; of a virtual disk nobody knows."""
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        device = path.stat().st_dev
        block = (_SYS_BLOCK / f"{os.major(device)}:{os.minor(device)}").resolve()
        if "virtual" in block.parts or "virtio" in str(block):
            return "unknown"
        if "nvme" in str(block):
            return "NVMe"
        queue = next(folder / "queue" for folder in (block, block.parent) if (folder / "queue").is_dir())
        return "hard disk" if (queue / "rotational").read_text().strip() == "1" else "SSD"
    except (OSError, StopIteration):
        return "unknown"


class _Reader:
    """Open files and the threads that read them."""

    def __init__(self, files: Sequence[Path], block_bytes: int) -> None:
        self._block = block_bytes
        self._descriptors: list[int] = []
        self.is_direct = True
        try:
            for path in files:
                self._descriptors.append(self._open(path))
        except OSError as err:
            self.close()
            raise MimoError(f"the disk cannot be measured: {err.strerror or err}") from err

    def run(self, places: Sequence[Sequence[int]], seconds: float, threads: int, seed: int) -> DiskRate:
        """Let the threads read until the time is over; what is under way then counts with its whole time."""
        spent: list[float] = []
        errors: list[OSError] = []
        deadline = time.perf_counter() + seconds

        def work(number: int) -> None:
            draw = random.Random(seed * 1000 + number)
            # Memory as the expert store has it: in huge pages a direct read is a few long transfers, not thousands.
            buffer = page_bytes(self._block)
            while not errors and (not spent or time.perf_counter() < deadline):  # one read at least
                at = draw.randrange(len(places))
                offset = draw.choice(places[at])
                began = time.perf_counter()
                try:
                    self._read(self._descriptors[at], buffer, offset)
                except OSError as err:
                    errors.append(err)
                    return
                spent.append(time.perf_counter() - began)

        workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        started = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if errors or not spent:
            reason = errors[0].strerror if errors else "nothing was read in time"
            raise MimoError(f"the disk cannot be measured: {reason}")
        total_bytes = len(spent) * self._block
        median_s = sorted(spent)[len(spent) // 2]
        return DiskRate(total_bytes / (time.perf_counter() - started) / 1e9, total_bytes, self.is_direct, median_s)

    def close(self) -> None:
        """Close the files."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    def _open(self, path: Path) -> int:
        direct = getattr(os, "O_DIRECT", 0)
        if self.is_direct and direct:
            with suppress(OSError):  # some file systems refuse it: then all files are read the other way
                return os.open(path, os.O_RDONLY | direct)
        self.is_direct = False
        return os.open(path, os.O_RDONLY)

    def _read(self, descriptor: int, buffer: memoryview, offset: int) -> None:
        if not self.is_direct and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, offset, self._block, os.POSIX_FADV_DONTNEED)
        done = 0
        while done < self._block:
            count = os.preadv(descriptor, [buffer[done:]], offset + done)
            if not count:
                raise OSError(0, "a file became shorter")
            done += count
