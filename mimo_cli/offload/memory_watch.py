"""MemoryWatch: how many slots the machine's free memory allows while a model runs. Decides; somebody else resizes.

A budget leaves a reserve to the system and to other programs. When half of it is gone, so many slots go that it is
whole again; they come back later, in steps, as long as it stays whole. Between the two nothing changes, so that a
program that takes and gives back a little memory moves nothing.
"""

import time
from collections.abc import Callable

CHECK_S = 0.5
"""Seconds between two looks at free memory: a look costs some tenths of a millisecond."""

GROW_S = 10.0
"""Seconds without a change before slots come back."""

_SHORT_SHARE = 0.5
_GROW_SHARE = 1.25
"""Of the reserve: below the first slots go, beyond the second they come back."""

_GROW_STEP = 0.25
"""Of the slots that are missing, so many come back at a time."""


class MemoryWatch:
    """`most` slots were given, `least` must stay. `free_bytes` tells what the machine, or the container, has left.

    `allowed` is how many slots there may be now; `is_short` tells whether memory is too short even for the least.
    """

    def __init__(
        self,
        free_bytes: Callable[[], int],
        reserve_bytes: int,
        slot_bytes: int,
        *,
        least: int,
        most: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.reserve_bytes = reserve_bytes
        self.free_bytes = 0
        self.allowed = most
        self.is_short = False
        self._ask = free_bytes
        self._slot_bytes = slot_bytes
        self._least = min(least, most)
        self._most = most
        self._clock = clock
        self._looked_s = self._changed_s = clock()

    def look(self, in_memory: int, lent: int = 0) -> bool:
        """Look at free memory, if the last look is long enough ago; returns whether `allowed` is another one now.

        in_memory: slots that have memory; the others will take theirs later. lent: slots whose memory is in other use.
        """
        now_s = self._clock()
        if now_s - self._looked_s < CHECK_S:
            return False
        self._looked_s = now_s
        before, self.free_bytes = self.allowed, self._ask()
        if self.free_bytes < _SHORT_SHARE * self.reserve_bytes:
            missing = -(-(self.reserve_bytes - self.free_bytes) // self._slot_bytes)
            wanted = in_memory + lent - missing
            self.is_short = wanted < self._least
            self.allowed = max(self._least, min(self.allowed, wanted))
        elif self.allowed < self._most and now_s - self._changed_s >= GROW_S:
            spare_bytes = self.free_bytes - _GROW_SHARE * self.reserve_bytes
            promised = max(0, self.allowed - lent - in_memory)  # slots without memory yet
            room = int(spare_bytes // self._slot_bytes) - promised
            step = max(1, int(_GROW_STEP * (self._most - self.allowed)))
            self.allowed += max(0, min(room, step))
            self.is_short = False
        if self.allowed != before or self.free_bytes < _SHORT_SHARE * self.reserve_bytes:
            self._changed_s = now_s
        return self.allowed != before
