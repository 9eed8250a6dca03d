"""ExpertCache: packed experts in memory, in slots of one size; the least recently used leave when room is needed.

Owns the slots, their order, and the counters. It neither computes nor knows where records come from.
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor

from mimo_cli.offload.expert_records import ExpertRecords
from mimo_cli.quant.buffers import PAGE_BYTES, allocate_bytes, round_up

_SLAB_BYTES = 64 << 20
"""Slots are allocated in slabs of about this size: large enough for huge pages, small enough to follow the need."""


class ExpertCache:
    """Slots for as many records as `budget_bytes` hold, at least one. Memory is taken as slots are first needed.

    Counters, since the start: `hits` and `misses` count experts asked for, `bytes_read` what the missing ones cost.
    """

    def __init__(self, records: ExpertRecords, budget_bytes: int) -> None:
        self.records = records
        self.hits = 0
        self.misses = 0
        self.bytes_read = 0
        self._slot_bytes = round_up(records.record_bytes, PAGE_BYTES)
        self.capacity = max(1, budget_bytes // self._slot_bytes)
        self._slots: list[Tensor] = []  # all there are
        self._free: list[Tensor] = []
        self._resident: OrderedDict[tuple[int, int], tuple[int, Tensor]] = OrderedDict()  # least recently used first

    @property
    def nbytes(self) -> int:
        """Bytes of memory taken for slots, in use or free."""
        return len(self._slots) * self._slot_bytes

    def __len__(self) -> int:
        return len(self._resident)

    def addresses(self, layer: int, expert_ids: Sequence[int]) -> list[int]:
        """Return where the records of some experts lie, all at once; those that are missing are read first.

        At most `capacity` experts, each once. The addresses hold until the next call. Raises CheckpointError if an
        expert cannot be read; none of the missing ones is kept then.
        """
        if len(expert_ids) > self.capacity:
            raise ValueError(f"{len(expert_ids)} experts do not fit in {self.capacity} slots")
        missing = []
        for expert_id in expert_ids:
            key = (layer, expert_id)
            if key in self._resident:
                self._resident.move_to_end(key)
            else:
                missing.append(expert_id)
        self.hits += len(expert_ids) - len(missing)
        if missing:
            self._fetch(layer, missing)
        return [self._resident[layer, expert_id][0] for expert_id in expert_ids]

    def clear(self) -> None:
        """Give all slots back to the system; the counters stay."""
        self._resident.clear()
        self._free.clear()
        self._slots.clear()

    def _fetch(self, layer: int, expert_ids: list[int]) -> None:
        """Read experts into slots. Interrupted anywhere, it leaves slots that nobody owns; the next call finds them."""
        if len(self._free) + len(self._resident) != len(self._slots):
            in_use = {address for address, _ in self._resident.values()}
            self._free = [slot for slot in self._slots if slot.data_ptr() not in in_use]
        slots = [self._take_slot() for _ in expert_ids]
        self.records.read(layer, expert_ids, [slot[: self.records.record_bytes] for slot in slots])
        self.misses += len(expert_ids)
        self.bytes_read += len(expert_ids) * self.records.stored_bytes
        for expert_id, slot in zip(expert_ids, slots, strict=True):
            self._resident[layer, expert_id] = (slot.data_ptr(), slot)

    def _take_slot(self) -> Tensor:
        """Return a free slot: a new one while the budget lasts, else that of the least recently used expert."""
        if not self._free and len(self._slots) < self.capacity:
            count = min(max(1, _SLAB_BYTES // self._slot_bytes), self.capacity - len(self._slots))
            self._free = list(allocate_bytes(count * self._slot_bytes).split(self._slot_bytes))
            self._slots += self._free
        return self._free.pop() if self._free else self._resident.popitem(last=False)[1][1]
