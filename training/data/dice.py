"""Dice: cheap random choices drawn from a numpy generator.

A single call into numpy's generator costs microseconds, a text sample needs a dozen: so numbers are drawn in blocks.
What is drawn is a pure function of the generator's state at the start.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")
BLOCK = 48


class Dice:
    """Random choices for one sample."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self._numbers: list[float] = []

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number in low..high."""
        if not self._numbers:
            self._numbers = self.rng.random(BLOCK).tolist()
        return low + (high - low) * self._numbers.pop()

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.uniform() < probability

    def integer(self, low: int, high: int) -> int:
        """A whole number in low..high, both included."""
        return low + int(self.uniform() * (high - low + 1))

    def pick(self, items: Sequence[Item]) -> Item:
        """One of the items."""
        return items[int(self.uniform() * len(items))]

    def some(self, items: Sequence[Item], count: int) -> list[Item]:
        """`count` different items in random order; all of them where there are fewer."""
        pool = list(items)
        chosen = []
        for _ in range(min(count, len(pool))):
            chosen.append(pool.pop(int(self.uniform() * len(pool))))
        return chosen

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        """All items in random order."""
        return self.some(items, len(items))
