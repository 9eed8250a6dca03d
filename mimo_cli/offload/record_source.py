"""RecordSource: brings one expert into one slot: reads its bytes, makes the record, checks it where that was asked for.

What the threads that read have in common; each has scratch memory of its own for experts that are not records yet.
"""

import threading
import zlib

from torch import Tensor

from mimo_cli.checkpoint.extent import Extent
from mimo_cli.errors import CheckpointError
from mimo_cli.offload.expert_records import ExpertRecords
from mimo_cli.offload.extent_reader import ExtentReader, IOMode, ReadAt, Scratch, read_bytes
from mimo_cli.offload.read_pool import DEFAULT_THREADS
from mimo_cli.offload.record_checks import RecordChecks
from mimo_cli.quant.buffers import PAGE_BYTES, round_up

PART_BYTES = 4 << 20
"""A record that is stored as it is kept is read in equal parts of so many bytes at most: enough for a disk's rate."""


class RecordSource:
    """Records and how they are read: `mode` past the system's cache or through it, by `threads` threads at once.

    read_at stands in for the system's read; `checks` are asked for every record.
    """

    def __init__(
        self,
        records: ExpertRecords,
        mode: IOMode = "buffered",
        threads: int = DEFAULT_THREADS,
        checks: RecordChecks | None = None,
        read_at: ReadAt | None = None,
    ) -> None:
        self.records = records
        self.threads = threads
        self.slot_bytes = round_up(records.record_bytes, PAGE_BYTES)
        self._reader = ExtentReader(mode, read_at)
        self._checks = checks
        self._made_bytes = 0
        self._own = threading.local()
        # Checked records, and those that must be rearranged, are read by one thread each.
        is_divided = records.is_stored_so and checks is None
        self.parts = max(1, -(-self.slot_bytes // PART_BYTES)) if is_divided else 1

    @property
    def mode(self) -> IOMode:
        """How files are read."""
        return self._reader.mode

    @property
    def bytes_read(self) -> int:
        """Bytes read so far, alignment included; of records that come from no file, their length."""
        return self._reader.bytes_read + self._made_bytes

    @property
    def retries(self) -> int:
        """Reads that were repeated after a fault."""
        return self._reader.retries

    @property
    def scratch_bytes(self) -> int:
        """Memory that reading takes beside the slots, with all threads at work."""
        return 0 if self.records.is_stored_so else self.threads * (self.records.stored_bytes + 32 * PAGE_BYTES)

    def fill_part(self, layer: int, expert_id: int, slot: Tensor, part: int) -> None:
        """Bring one of `parts` parts of an expert into a slot, uint8 [slot_bytes]. Raises as `fill`."""
        if self.parts == 1:
            return self.fill(layer, expert_id, slot)
        part_bytes = round_up(-(-self.slot_bytes // self.parts), PAGE_BYTES)
        try:
            whole = self.records.extents(layer, expert_id)[0]
            first = part * part_bytes
            size = min(part_bytes, whole.size_bytes - first)
            self._reader.read_record(Extent(whole.path, whole.offset + first, size), slot[first : first + part_bytes])
        except CheckpointError as err:
            raise CheckpointError(f"expert {expert_id} of layer {layer}: {err}", hint=err.hint) from err

    def fill(self, layer: int, expert_id: int, slot: Tensor) -> None:
        """Bring an expert into a slot, uint8 [slot_bytes]. Raises CheckpointError naming expert, layer and file."""
        try:
            self._fetch(layer, expert_id, slot)
            if self._checks is not None and not self._is_sound(self._checks, layer, expert_id, slot):
                self._fetch(layer, expert_id, slot)  # a fault on the way is not there the second time
                if not self._is_sound(self._checks, layer, expert_id, slot):
                    raise CheckpointError(
                        "its checksum is not the recorded one: the bytes changed",
                        hint="copy or fetch that file again, or make the store again with `mimo quantize`",
                    )
        except CheckpointError as err:
            raise CheckpointError(f"expert {expert_id} of layer {layer}: {err}", hint=err.hint) from err

    def close(self) -> None:
        """Close the files."""
        if self._checks is not None:
            self._checks.save()
        self._reader.close()
        self.records.close()

    def _fetch(self, layer: int, expert_id: int, slot: Tensor) -> None:
        extents = self.records.extents(layer, expert_id)
        if self.records.is_stored_so:
            self._reader.read_record(extents[0], slot)
            return
        parts = self._reader.read(extents, self._scratch()) if extents else []
        self.records.place(layer, expert_id, parts, slot[: self.records.record_bytes])
        if not extents:
            self._made_bytes += self.records.stored_bytes

    def _is_sound(self, checks: RecordChecks, layer: int, expert_id: int, slot: Tensor) -> bool:
        found = zlib.crc32(slot[: self.records.record_bytes].numpy().data)
        expected = self.records.checksum(layer, expert_id)
        if expected is None:
            expected = checks.expected(layer, expert_id)
        if expected is None:
            checks.seen(layer, expert_id, found)
        return expected in (None, found)

    def _scratch(self) -> Scratch:
        if not hasattr(self._own, "scratch"):
            self._own.scratch = Scratch()
        scratch: Scratch = self._own.scratch
        return scratch


def expert_read_bytes(records: ExpertRecords, layer: int, expert_id: int) -> int:
    """Return the bytes that reading an expert past the system's cache takes."""
    return read_bytes(records.extents(layer, expert_id))
