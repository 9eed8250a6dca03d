"""Catalogue: the maker of every task, by the task's name.

Speech needs a folder of clips besides: see speech.py.
"""

import functools
from collections.abc import Callable

import numpy as np

from training.data import (
    films,
    lookup,
    mixed,
    pairs,
    pictures,
    smalltalk,
    sounds,
    strings,
    sums,
    system,
    text,
    tools,
    words,
)
from training.data.sample import Sample, Split

Maker = Callable[[np.random.Generator, Split], Sample]

MAKERS: dict[str, Maker] = {
    "pictures": pictures.make,
    "words": words.make,
    "pairs": pairs.make,
    "video": films.make,
    "sounds": sounds.make,
    "mixed": mixed.make,
    "text": text.make,
    "sums": sums.make,
    **{kind: functools.partial(strings.make, kind=kind) for kind in strings.KINDS},
    "lookup": lookup.make,
    "needle": lookup.make_needle,
    "system": system.make,
    "smalltalk": smalltalk.make,
    "tools": tools.make,
}
