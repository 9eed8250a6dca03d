"""The mix: every source of examples by name, and how each stage weighs them."""

import numpy as np

from training.data import lookup, smalltalk, strings, sums
from training.data.sample import Sample, Split
from training.drills import drills
from training.prompts import Prompter
from training.sources import Source, from_maker

LOOKUP_TOKENS = (40, 180)


def text_sources(prompter: Prompter, length: int) -> dict[str, Source]:
    """Sources that need no tower; no example is longer than a row."""

    def measure(text: str) -> int:
        return len(prompter.encode(text))

    def look_up(rng: np.random.Generator, split: Split) -> Sample:
        return lookup.make(rng, split, tokens=(40, length - 70), measure=measure)

    def string(rng: np.random.Generator, split: Split) -> Sample:
        return strings.make(rng, split, str(rng.choice(list(strings.KINDS))))

    return {
        "drills": drills(prompter),  # type: ignore[dict-item]
        "lookup": from_maker(prompter, look_up),
        "strings": from_maker(prompter, string),
        "sums": from_maker(prompter, sums.make),
        "smalltalk": from_maker(prompter, smalltalk.make),
    }
