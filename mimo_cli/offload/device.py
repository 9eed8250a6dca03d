"""ExpertDevice: what the tier of a graphics card asks of the card, and nothing more.

Two queues work beside the host. Computing is done in the order in which it was asked for; uploads are done at any time,
each after an event that it was told to wait for. Events order the one against the other:

    host      join(event)             stands still until an event has happened
    compute   wait(event), record()   what follows happens after an event; an event after all that was asked for
    uploads   upload(..., after)      begins after an event; returns the one of its end

Everything that decides (which slot, whom to evict, who computes) is the tier's, so a device that is only simulated has
the same hazards as a real one: a slot overwritten while it is read, a staging buffer filled again too early.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from mimo_cli.quant.slot_layout import SlotLayout

Event: TypeAlias = Any
"""Whatever a device calls an event."""


class ExpertDevice(Protocol):
    """A card, or what stands in for one. Called by one thread at a time.

    Letters: N tokens, A experts per token, E experts, H hidden size.
    """

    name: str
    where: torch.device

    def free_bytes(self) -> int:
        """Return the memory that can still be had."""
        ...

    def total_bytes(self) -> int:
        """Return the memory of the card."""
        ...

    def allocate(self, nbytes: int) -> Tensor:
        """Return uint8 [nbytes] of its memory, at a multiple of 256. Raises torch.OutOfMemoryError."""
        ...

    def allocate_staging(self, nbytes: int) -> Tensor:
        """Return uint8 [nbytes] of the host's memory that uploads read without a copy between. Raises MemoryError."""
        ...

    def release(self) -> None:
        """Give back memory that no tensor uses any more, after all that was asked for is done."""
        ...

    def upload(self, source: Tensor, target: Tensor, after: Event) -> Event:
        """Copy a staging buffer to a place of its memory, not before an event; returns the event of the end.

        The source must stay as it is until then.
        """
        ...

    def record(self) -> Event:
        """Return an event that happens when all computing asked for so far is done."""
        ...

    def wait(self, event: Event) -> None:
        """Let computing asked for from now on happen after an event."""
        ...

    def is_done(self, event: Event) -> bool:
        """Tell whether an event has happened."""
        ...

    def join(self, event: Event) -> None:
        """Stand still until an event has happened."""
        ...

    def run(self, work: Callable[[], None]) -> None:
        """Compute in order: `work` calls torch, or `add_experts`, on tensors of this device."""
        ...

    def add_experts(
        self,
        hidden: Tensor,
        ids: Tensor,
        weights: Tensor,
        table: Tensor,
        slots: Tensor,
        layout: SlotLayout,
        out: Tensor,
    ) -> None:
        """Add to out [N, H] float32 what the experts of a table say; others add nothing. Called inside of `run`.

        hidden [N, H]; ids [N, A] int64 and weights [N, A] float32; table [E] int32: the slot of each expert, -1 where
        it has none; slots uint8 [slots, bytes from one to the next]. A row depends on no other row.
        """
        ...

    def finish(self, result: Tensor) -> Tensor:
        """Return a result for whoever computes on with torch on `where`, at once if that is in order anyway."""
        ...
