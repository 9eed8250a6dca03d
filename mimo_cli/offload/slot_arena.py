"""SlotArena: memory for a fixed number of records of one size, in one piece that may have huge pages.

Slots are used again and again and never given back one by one, except where a budget shrinks. Memory is taken when a
slot is first written.
"""

import mmap

from torch import Tensor

from mimo_cli.quant.buffers import PAGE_BYTES, allocate_mapped, round_up


class SlotArena:
    """`slots` slots of at least `record_bytes` each, at multiples of 4096."""

    def __init__(self, slots: int, record_bytes: int) -> None:
        self.slots = slots
        self.slot_bytes = round_up(record_bytes, PAGE_BYTES)
        self._memory, self._mapping, self._start = allocate_mapped(slots * self.slot_bytes)

    def slot(self, number: int) -> Tensor:
        """Return the bytes of a slot, uint8 [slot_bytes]."""
        return self._memory[number * self.slot_bytes : (number + 1) * self.slot_bytes]

    def address(self, number: int) -> int:
        """Return where a slot begins."""
        return self._memory.data_ptr() + number * self.slot_bytes

    def at(self, address: int) -> Tensor:
        """Return the bytes of the slot that begins at an address."""
        return self.slot((address - self._memory.data_ptr()) // self.slot_bytes)

    def release(self, number: int) -> None:
        """Give the memory of a slot back to the system; its content is lost, and it may be used again."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._mapping.madvise(mmap.MADV_DONTNEED, self._start + number * self.slot_bytes, self.slot_bytes)
