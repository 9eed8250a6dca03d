"""GpuSlots: experts in the memory of a card. Slots of one size in one buffer, and a table from expert to slot.

    [ slots that keep experts ........................ | landing 0 | landing 1 ]

Landing slots hold experts that are computed once and then gone, one half while the other is filled. What orders all of
it are three rules. An upload into a slot waits for all computing asked for before it was ordered. Computing with a slot
waits for its upload. A staging buffer is filled again only when its last upload is over, and a slot on its way is
nobody's to take. The table changes in the order of computing.
"""

from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor

from mimo_cli.offload.device import Event, ExpertDevice
from mimo_cli.offload.policy import SlotPolicy
from mimo_cli.quant.buffers import PAGE_BYTES, round_up

STAGING_BUFFERS = 2
"""One is filled by the processor while the other is uploaded."""


class GpuSlots:
    """`slots` slots for experts of `layers`, `experts` in each, and twice `half` landing slots.

    Raises torch.OutOfMemoryError where the device has no room.
    """

    def __init__(
        self,
        device: ExpertDevice,
        record_bytes: int,
        layers: Sequence[int],
        experts: int,
        slots: int,
        half: int,
    ) -> None:
        self.capacity = max(0, min(slots, len(layers) * experts))
        self.half = half
        self.slot_bytes = round_up(record_bytes, PAGE_BYTES)
        self.uploads = 0
        self.policy = SlotPolicy(self.capacity, layers, experts)
        self._device = device
        self._record_bytes = record_bytes
        self._rows = {layer: row for row, layer in enumerate(layers)}
        self._experts = experts
        self.buffer = device.allocate((self.capacity + 2 * half) * self.slot_bytes).view(-1, self.slot_bytes)
        table = device.allocate(4 * len(layers) * experts).view(torch.int32).view(len(layers), experts)
        device.run(lambda: _fill(table, -1))
        self.table = table
        self.free = list(range(self.capacity - 1, -1, -1))
        self._arriving: dict[tuple[int, int], Event] = {}
        self._staging = [device.allocate_staging(self.slot_bytes) for _ in range(STAGING_BUFFERS)]
        self._staged: list[Event | None] = [None] * STAGING_BUFFERS

    @property
    def nbytes(self) -> int:
        """Bytes of the device's memory that are taken."""
        return self.buffer.nbytes + self.table.nbytes

    @property
    def holds_all(self) -> bool:
        """Tell whether every expert of every layer is there, none on its way."""
        return self.capacity == len(self._rows) * self._experts and not self.free and not self._arriving

    def table_of(self, layer: int) -> Tensor:
        """Return the slots of a layer's experts, int32 [E] on the device."""
        return self.table[self._rows[layer]]

    def present(self, layer: int, experts: Iterable[int]) -> list[int]:
        """Return those of some experts that have slots; computing asked for from now on finds them there."""
        found = [expert for expert in experts if self.policy.slot(layer, expert) is not None]
        for expert in found:
            self._arrive(layer, expert)
        return found

    def settle(self) -> None:
        """Take note of the uploads that are over."""
        for (layer, expert), event in list(self._arriving.items()):
            if self._device.is_done(event):
                self._arrive(layer, expert)

    def admit(self, layer: int, expert: int, protected: Collection[int] = ()) -> int | None:
        """Return a slot for an expert: a free one, or that of one whose next use is expected later; None: it may not.

        The slots of `protected` experts of this layer stay, and those on their way.
        """
        if self.free:
            return self.free.pop()
        held = {slot for other in protected if (slot := self.policy.slot(layer, other)) is not None}
        held |= {slot for key in self._arriving if (slot := self.policy.slot(*key)) is not None}
        weakest = self.policy.weakest(held)
        if weakest is None or weakest[1] <= self.policy.wait(layer, expert):
            return None
        slot = weakest[0]
        key = self.policy.holds(slot)
        self.policy.remove(slot)
        if key is not None:
            self._point(*key, -1)
        return slot

    def keep(self, layer: int, expert: int, slot: int, record: Tensor, after: Event) -> None:
        """Begin to upload an expert into a slot that `admit` gave. It counts as present from now on."""
        event = self.upload(record, slot, after)
        self.policy.place(slot, layer, expert)
        self._arriving[layer, expert] = event

    def adopt(self, layer: int, expert: int, slot: int, landing: int) -> None:
        """Keep an expert that computing asked for so far finds in a landing slot, in one that `admit` gave."""
        target, source = self.buffer[slot], self.buffer[landing]
        self._device.run(lambda: _copy(target, source))
        self.policy.place(slot, layer, expert)
        self._point(layer, expert, slot)

    def landing(self, half: int, number: int) -> int:
        """Return a landing slot of the one half or the other."""
        return self.capacity + half * self.half + number

    def upload(self, record: Tensor, slot: int, after: Event) -> Event:
        """Begin to upload a record into a slot, not before an event; returns the event of its end.

        The record may change when this returns. Stands still while both staging buffers are in use.
        """
        number = self.uploads % STAGING_BUFFERS
        staged = self._staged[number]
        if staged is not None:
            self._device.join(staged)
        staging = self._staging[number][: self._record_bytes]
        staging.copy_(record[: self._record_bytes])
        self._staged[number] = self._device.upload(staging, self.buffer[slot][: self._record_bytes], after)
        self.uploads += 1
        return self._staged[number]

    def close(self) -> None:
        """Wait for all uploads; nothing may be asked for afterwards."""
        for event in [*self._arriving.values(), *(event for event in self._staged if event is not None)]:
            self._device.join(event)
        self._arriving.clear()

    def _arrive(self, layer: int, expert: int) -> None:
        event = self._arriving.pop((layer, expert), None)
        slot = self.policy.slot(layer, expert)
        if event is not None and slot is not None:
            self._device.wait(event)
            self._point(layer, expert, slot)

    def _point(self, layer: int, expert: int, slot: int) -> None:
        entry = self.table[self._rows[layer], expert]
        self._device.run(lambda: _fill(entry, slot))


def _copy(target: Tensor, source: Tensor) -> None:
    target.copy_(source)


def _fill(target: Tensor, value: int) -> None:
    target.fill_(value)
