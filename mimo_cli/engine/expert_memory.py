"""ExpertMemory: the memory of experts while a model runs: what the budget gave, less what others need just now.

Two things take slots away and give them back: free memory of the machine that shrinks (offload/memory_watch.py), and a
long prompt, whose rows lie in that memory while each expert is read once for all of them (waves.py). Which slots there
are decides what must be read, never the answer.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.engine.memory import available_bytes, machine_bytes, rss_bytes
from mimo_cli.engine.waves import Wave, budget_wave
from mimo_cli.offload.budget import MemoryBudget, reserve_bytes
from mimo_cli.offload.expert_store import ExpertStore
from mimo_cli.offload.memory_watch import MemoryWatch
from mimo_cli.units import format_bytes

_LEAST_RESERVE_BYTES = 64 * 2**20
"""Where a budget was given that leaves less, so much free memory is watched for all the same."""


class ExpertMemory:
    """Resizes an expert store between passes. `on_notice` is told, in a sentence for the user, when memory is short.

    free_bytes and clock stand in for the machine's.
    """

    def __init__(
        self,
        store: ExpertStore,
        budget: MemoryBudget,
        config: ModelConfig,
        dtype: torch.dtype,
        free_bytes: Callable[[], int] = available_bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.on_notice: Callable[[str], None] | None = None
        self._store = store
        self._budget = budget
        self._config = config
        self._dtype = dtype
        self._least = max(1, min(budget.step_slots, store.cache.capacity))
        self._lent = 0
        self._has_told = False
        self._watch = MemoryWatch(
            free_bytes,
            _reserve(budget, free_bytes()),
            store.expert_bytes,
            least=self._least,
            most=store.cache.capacity,
            clock=clock,
        )

    def check(self) -> None:
        """Look at the machine's memory, at most twice a second, and keep to what it allows. Between two passes only."""
        if self._watch.look(self._store.cache.slots_in_memory, self._lent):
            self._apply()
        if self._watch.allowed == self._store.cache.capacity:
            self._has_told = False
        elif not self._has_told:
            self._has_told = True
            if self.on_notice:
                self.on_notice(self._sentence())

    def plan_wave(self, tokens: int) -> Wave:
        """Return how many of the next `tokens` tokens of a prompt go through each layer together."""
        return budget_wave(tokens, self._budget, self._config, self._dtype, slots=self._watch.allowed)

    @contextmanager
    def lend(self, slots: int) -> Iterator[None]:
        """Give the memory of so many slots to the block."""
        self._lent = slots
        self._apply()
        try:
            yield
        finally:
            self._lent = 0
            self._apply()

    def _apply(self) -> None:
        slots = max(self._least, self._watch.allowed - self._lent)
        if slots != self._store.cache.limit:
            self._store.resize(slots)

    def _sentence(self) -> str:
        size = self._store.expert_bytes
        free, kept = format_bytes(self._watch.free_bytes), format_bytes(self._watch.allowed * size)
        given = format_bytes(self._store.cache.capacity * size)
        more = " This is the least: close other programs." if self._watch.is_short else ""
        return f"{free} of memory are left free: experts keep to {kept} instead of {given}, tokens take longer.{more}"


def _reserve(budget: MemoryBudget, free_bytes: int) -> int:
    """Return the memory that should stay free: what the budget leaves, but no more than an automatic one would."""
    to_come = max(0, budget.total_bytes - rss_bytes())
    return max(_LEAST_RESERVE_BYTES, min(reserve_bytes(machine_bytes()), free_bytes - to_come))
