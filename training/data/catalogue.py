"""Catalogue: the maker of every task, by the task's name."""

from collections.abc import Callable

import numpy as np

from training.data import pictures, words
from training.data.sample import Sample, Split

Maker = Callable[[np.random.Generator, Split], Sample]

MAKERS: dict[str, Maker] = {
    "pictures": pictures.make,
    "words": words.make,
}
