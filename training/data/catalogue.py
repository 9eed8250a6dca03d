"""Catalogue: the maker of every task, by the task's name.

Speech and the questions asked by voice need a folder of clips besides: see speech.py and mixed.py.
"""

import functools
from collections.abc import Callable

import numpy as np

from training.data import lookup, pictures, smalltalk, strings, sums, system, tools, words
from training.data.sample import Sample, Split

Maker = Callable[[np.random.Generator, Split], Sample]

MAKERS: dict[str, Maker] = {
    "pictures": pictures.make,
    "words": words.make,
    "sums": sums.make,
    **{kind: functools.partial(strings.make, kind=kind) for kind in strings.KINDS},
    "lookup": lookup.make,
    "needle": lookup.make_needle,
    "system": system.make,
    "smalltalk": smalltalk.make,
    "tools": tools.make,
}
