"""RecordChecks: CRC-32 checksums of experts: those that a store was written with, or else those of the first reading.

A packed store says what each record had when it was made, so that a corrupted one is found at its first reading. For
releases, and stores made before, it is recorded what this machine read first; from then on a byte that changes on the
disk or on the way is found. These are kept in the folder of caches, one file for each model as its files are now: one
that was written anew is another model.
"""

import hashlib
import json
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mimo_cli.offload.expert_records import ExpertRecords


class RecordChecks:
    """Checksums by layer and expert. `path` None: for this run only."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: dict[str, int] = {}
        self._is_changed = False
        self._lock = threading.Lock()
        if path is not None:
            with suppress(OSError, ValueError, TypeError, AttributeError):  # none yet, or damaged: learned again
                self._known = {str(key): int(value) for key, value in json.loads(path.read_text("utf-8")).items()}

    @classmethod
    def of_files(
        cls, records: ExpertRecords, layers: Sequence[int], experts: int, folder: Path | None
    ) -> "RecordChecks":
        """Return the checksums kept in a folder for records whose files are as they are now."""
        return cls(folder / f"checks-{files_id(records, layers, experts)}.json" if folder else None)

    def expected(self, layer: int, expert_id: int) -> int | None:
        """Return the checksum of a record; None where it was never read."""
        return self._known.get(f"{layer}.{expert_id}")

    def seen(self, layer: int, expert_id: int, checksum: int) -> None:
        """Note the checksum of a record."""
        with self._lock:
            self._known[f"{layer}.{expert_id}"] = checksum
            self._is_changed = True

    def save(self) -> None:
        """Write what was learned, if there is a place for it."""
        with self._lock:
            if self._path is None or not self._is_changed:
                return
            text = json.dumps(self._known)
            self._is_changed = False
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part = self._path.with_suffix(f".{os.getpid()}")
            part.write_text(text, "utf-8")
            part.replace(self._path)


def files_id(records: ExpertRecords, layers: Sequence[int], experts: int) -> str:
    """Name the files that the first `experts` experts of some layers come from: paths, sizes, times of change."""
    digest = hashlib.sha256()
    of_experts = (records.extents(layer, expert) for layer in layers for expert in range(experts))
    for path in sorted({extent.path for extents in of_experts for extent in extents}):
        with suppress(OSError):
            status = path.stat()
            digest.update(f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
