"""MemoryBudget: one number for everything a loaded model takes, and how it is divided.

    total = process + dense + KV + buffers + slots

Arithmetic only: nobody here asks the machine or allocates. What does not fit is refused with the numbers, before
anything is loaded.
"""

import re
from dataclasses import dataclass

from mimo_cli.errors import CapacityError, UsageError
from mimo_cli.units import format_bytes, parse_size

_RESERVE_SHARE = 0.05
_RESERVE_LEAST_BYTES = 500_000_000


@dataclass(frozen=True)
class RamSetting:
    """What the user allows: bytes, a share of the machine's memory, or neither (automatic)."""

    size_bytes: int | None = None
    share: float | None = None

    def total_bytes(self, free_bytes: int, machine_bytes: int) -> int:
        """Return the budget. Automatic: what is free, less a reserve for everything else that runs.

        machine_bytes is the memory of the machine, or of the container. Raises CapacityError where more was asked for
        than is free: the rest would be swap, or the end of another program.
        """
        if self.size_bytes is None and self.share is None:
            return max(0, free_bytes - reserve_bytes(machine_bytes))
        wanted = self.size_bytes if self.size_bytes is not None else int((self.share or 0.0) * machine_bytes)
        if wanted > free_bytes:
            raise CapacityError(
                f"a budget of {format_bytes(wanted)} was given, {format_bytes(free_bytes)} of memory are free",
                hint=f"--ram auto takes {format_bytes(max(0, free_bytes - reserve_bytes(machine_bytes)))}",
            )
        return wanted

    def __str__(self) -> str:
        if self.share is not None:
            return f"{self.share:.0%}"
        return "auto" if self.size_bytes is None else format_bytes(self.size_bytes)


AUTOMATIC = RamSetting()


def parse_ram(text: str) -> RamSetting:
    """Read `16G`, `80%` or `auto`. Raises UsageError naming the text."""
    text = text.strip()
    if text.lower() == "auto":
        return RamSetting()
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*%", text)
    if match is None:
        return RamSetting(size_bytes=parse_size(text))
    share = float(match[1]) / 100
    if not 0 < share <= 1:
        raise UsageError(f"`{text}` of the memory is not possible", hint="write for example 80%, 16G or auto")
    return RamSetting(share=share)


def parsed(setting: RamSetting | str) -> RamSetting:
    """Return a setting that may still be text. Raises UsageError naming the text."""
    return parse_ram(setting) if isinstance(setting, str) else setting


def reserve_bytes(machine_bytes: int) -> int:
    """Return what an automatic budget leaves to the system and to other programs."""
    return max(_RESERVE_LEAST_BYTES, int(_RESERVE_SHARE * machine_bytes))


@dataclass(frozen=True)
class MemoryBudget:
    """How the total is divided; all in bytes except `step_slots`.

    process_bytes   what the process takes before the model is there: interpreter and libraries
    dense_bytes     weights that are always in memory
    kv_bytes        keys and values of a full context
    buffer_bytes    activations of the largest pass, and what reading needs beside the slots
    slot_bytes      one expert as it is kept; 0 for a model without experts
    experts         of all layers: there are never more slots
    step_slots      experts of one layer that one token needs at once: fewer slots cannot decode
    cycle_slots     experts of all layers that one token needs: with fewer slots nothing is found again
    """

    total_bytes: int
    process_bytes: int
    dense_bytes: int
    kv_bytes: int
    buffer_bytes: int
    slot_bytes: int
    experts: int
    step_slots: int
    cycle_slots: int

    @property
    def fixed_bytes(self) -> int:
        """Everything but the slots."""
        return self.process_bytes + self.dense_bytes + self.kv_bytes + self.buffer_bytes

    @property
    def slots(self) -> int:
        """Experts that fit in what is left."""
        if not self.slot_bytes:
            return 0
        return min(self.experts, max(0, self.total_bytes - self.fixed_bytes) // self.slot_bytes)

    @property
    def slots_bytes(self) -> int:
        """Memory of all slots."""
        return self.slots * self.slot_bytes

    @property
    def least_bytes(self) -> int:
        """The smallest budget that works at all."""
        return self.fixed_bytes + min(self.step_slots, self.experts) * self.slot_bytes

    @property
    def is_below_cycle(self) -> bool:
        """Tell whether one token's experts do not fit together: then hardly any expert is still there when needed."""
        return self.slots < min(self.cycle_slots, self.experts)

    def require(self, usable_bytes: int = 1 << 62) -> None:
        """Raise CapacityError, naming what takes how much, where the budget is below `least_bytes`.

        `usable_bytes` is what could be given at most.
        """
        if self.total_bytes >= self.least_bytes:
            return
        given = f"{format_bytes(self.total_bytes)} given"
        if self.process_bytes + self.dense_bytes > self.total_bytes:
            needed = self.process_bytes + self.dense_bytes
            message = f"needs {format_bytes(needed)} for the dense part, {given}"
        else:
            step = min(self.step_slots, self.experts)
            parts = [
                ("the dense part", self.process_bytes + self.dense_bytes),
                ("the KV cache", self.kv_bytes),
                ("buffers", self.buffer_bytes),
                (f"{step} experts of a step", step * self.slot_bytes),
            ]
            listed = ", ".join(f"{format_bytes(size)} for {name}" for name, size in parts if size)
            message = f"needs {format_bytes(self.least_bytes)} ({listed}), {given}"
        enough = f"--ram {_round_up_gb(self.least_bytes)}"
        if self.least_bytes > usable_bytes:
            enough = "close other programs, make a smaller store with `mimo quantize --recipe q4`"
        raise CapacityError(message, hint=f"{enough}, or a smaller --ctx")


def _round_up_gb(size_bytes: int) -> str:
    return f"{-(-size_bytes // 10**8) / 10:.1f}G"
