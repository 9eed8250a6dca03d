"""Sources: endless streams of example groups for the trunk, with the media their prompts stand for.

A group shares a beginning (a picture asked about several times, a list looked up several times), which packing stores
once. Pictures and recordings come from pools: encoded once by the frozen towers, asked about a few times, replaced.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from training.data.sample import Split
from training.prompts import Example


@dataclass
class Shelf:
    """Media by number: rows of the vision tower [n, H], or codes of a recording [K, channels]."""

    rows: dict[int, Tensor] = field(default_factory=dict)
    codes: dict[int, Tensor] = field(default_factory=dict)
    next_uid: int = 0

    def add_rows(self, rows: Tensor) -> int:
        """Put a picture's rows on the shelf; returns its number."""
        self.next_uid += 1
        self.rows[self.next_uid] = rows
        return self.next_uid

    def add_codes(self, codes: Tensor) -> int:
        """Put a recording's codes on the shelf; returns its number."""
        self.next_uid += 1
        self.codes[self.next_uid] = codes
        return self.next_uid


Group = list[Example]
Source = Callable[[np.random.Generator, Split], Group]


def mixed(sources: dict[str, tuple[Source, float]], rng: np.random.Generator, split: Split) -> Iterator[Group]:
    """Draw from sources by their weights, for ever."""
    names = list(sources)
    weights = np.array([sources[name][1] for name in names], float)
    weights /= weights.sum()
    while True:
        for name in rng.choice(len(names), size=64, p=weights):
            yield sources[names[name]][0](rng, split)
