"""VramBudget: one number for everything a model takes on a graphics card, and how it is divided.

    total = context of the driver + dense + KV + buffers + landing slots + slots that keep experts

The towers stay with the processor. Arithmetic only, as in budget.py.
"""

from dataclasses import dataclass

from mimo_cli.errors import CapacityError
from mimo_cli.offload.budget import RamSetting
from mimo_cli.units import format_bytes

RESERVE_BYTES = 1 << 30
"""What an automatic budget leaves free: for the screen, for other programs, and for what allocators waste."""

DRIVER_BYTES = 600_000_000
"""Of the driver's context and of libraries' workspaces. Usual, not measured here."""

_LANDING_SHARE = 0.04
_MOST_LANDING = 16
"""Experts that land together at most: enough that a copy is always under way."""


def vram_total(setting: RamSetting, free_bytes: int, card_bytes: int) -> int:
    """Return the budget: a size, a share of the card, or what is free less a reserve.

    Raises CapacityError where more was asked for than is free.
    """
    if setting.size_bytes is None and setting.share is None:
        return max(0, free_bytes - RESERVE_BYTES)
    wanted = setting.size_bytes if setting.size_bytes is not None else int((setting.share or 0.0) * card_bytes)
    if wanted > free_bytes:
        raise CapacityError(
            f"a budget of {format_bytes(wanted)} of graphics memory was given, {format_bytes(free_bytes)} are free",
            hint=f"--vram auto takes {format_bytes(max(0, free_bytes - RESERVE_BYTES))}",
        )
    return wanted


@dataclass(frozen=True)
class VramBudget:
    """How the total is divided, in bytes; `half` is a number of experts.

    driver_bytes   of the driver and of libraries
    dense_bytes    weights that every token reads
    kv_bytes       keys and values of a full context
    buffer_bytes   activations of the largest pass
    slot_bytes     one expert; 0 for a model without experts
    experts        of all layers, `layer_experts` of one
    half           experts that land together: there is room for twice as many, and less where memory is short
    """

    total_bytes: int
    driver_bytes: int
    dense_bytes: int
    kv_bytes: int
    buffer_bytes: int
    slot_bytes: int = 0
    experts: int = 0
    layer_experts: int = 0

    @property
    def fixed_bytes(self) -> int:
        """Everything but experts."""
        return self.driver_bytes + self.dense_bytes + self.kv_bytes + self.buffer_bytes

    @property
    def half(self) -> int:
        """Experts that land together; 0 where there is no room for two of them."""
        if not self.slot_bytes:
            return 0
        left = max(0, self.total_bytes - self.fixed_bytes)
        wanted = max(1, min(_MOST_LANDING, self.layer_experts, int(_LANDING_SHARE * left / 2 / self.slot_bytes)))
        return wanted if left >= 2 * wanted * self.slot_bytes else 0

    @property
    def transfer_bytes(self) -> int:
        """Landing slots of both halves, and the table of all slots."""
        return 2 * self.half * self.slot_bytes + (4 * self.experts if self.half else 0)

    @property
    def slots(self) -> int:
        """Experts that the card keeps: 0 to all of them."""
        if not self.half:
            return 0
        left = self.total_bytes - self.fixed_bytes - self.transfer_bytes
        return max(0, min(self.experts, left // self.slot_bytes))

    @property
    def slots_bytes(self) -> int:
        """Memory of these."""
        return self.slots * self.slot_bytes

    @property
    def least_bytes(self) -> int:
        """The smallest budget with which the dense part lies on the card."""
        return self.fixed_bytes

    def require(self) -> None:
        """Raise CapacityError, naming what takes how much, where the dense part does not fit."""
        if self.total_bytes >= self.least_bytes:
            return
        parts = [
            ("the driver", self.driver_bytes),
            ("the dense part", self.dense_bytes),
            ("the KV cache", self.kv_bytes),
            ("buffers", self.buffer_bytes),
        ]
        listed = ", ".join(f"{format_bytes(size)} for {name}" for name, size in parts if size)
        raise CapacityError(
            f"the card needs {format_bytes(self.least_bytes)} ({listed}), {format_bytes(self.total_bytes)} given",
            hint="a smaller --ctx, --gpu-dense nf4, or --device cpu",
        )
