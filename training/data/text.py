"""Text: a mixture of all text tasks but tools and needles, as the text evaluation draws them."""

import numpy as np

from training.data import lookup, smalltalk, strings, sums, system
from training.data.sample import Sample, Split

SHARES = {
    "lookup": 0.22, "sums": 0.22, "system": 0.16, "copy": 0.13, "reverse": 0.13, "sort": 0.04, "count_letters": 0.02,
    "case": 0.02, "pick": 0.03, "smalltalk": 0.03,
}  # fmt: skip
_MODULES = {"lookup": lookup, "sums": sums, "system": system, "smalltalk": smalltalk}


def make(rng: np.random.Generator, split: Split) -> Sample:
    """A sample of one text task; its `task` says which."""
    name = str(rng.choice(list(SHARES), p=list(SHARES.values())))
    if name in _MODULES:
        return _MODULES[name].make(rng, split)
    return strings.make(rng, split, name)
