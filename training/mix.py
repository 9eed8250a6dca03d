"""The mix: every source of examples by name, for rows of any length."""

from collections.abc import Callable

import numpy as np

from training.data import films, lookup, mixed, pairs, smalltalk, sounds, speech, strings, sums, system, tools, words
from training.data.sample import Sample, Split
from training.data.speech_clips import ClipFolder
from training.drills import drills
from training.pool import Encoder, Pool, scene_group
from training.prompts import Prompter
from training.sources import Group, Source

STRING_SHARES = {"copy": 0.3, "reverse": 0.3, "sort": 0.12, "count_letters": 0.1, "case": 0.08, "pick": 0.1}
Maker = Callable[[np.random.Generator, Split], Sample]


def fitting(prompter: Prompter, make: Maker, length: int) -> Source:
    """A source of single text examples that fit a row."""

    def draw(rng: np.random.Generator, split: Split) -> Group:
        while True:
            example = prompter.example(make(rng, split))
            if len(example) <= length:
                return [example]

    return draw


def text_sources(prompter: Prompter, length: int) -> dict[str, Source]:
    """Sources that need no tower, for rows of `length` tokens."""

    def measure(text: str) -> int:
        return len(prompter.encode(text))

    def look_up(rng: np.random.Generator, split: Split) -> Sample:
        return lookup.make(rng, split, tokens=(40, min(512, length - 70)), measure=measure)

    def needle(rng: np.random.Generator, split: Split) -> Sample:
        return lookup.make_needle(rng, split, tokens=(60, length - 70), measure=measure)

    def string(rng: np.random.Generator, split: Split) -> Sample:
        return strings.make(rng, split, str(rng.choice(list(STRING_SHARES), p=list(STRING_SHARES.values()))))

    makers = {
        "lookup": look_up,
        "needle": needle,
        "strings": string,
        "sums": sums.make,
        "system": system.make,
        "smalltalk": smalltalk.make,
        "tools": tools.make,
    }
    found: dict[str, Source] = {name: fitting(prompter, make, length) for name, make in makers.items()}
    return {"drills": drills(prompter), **found}


def media_sources(encoder: Encoder, clips: ClipFolder) -> dict[str, Source]:
    """Sources of samples with pictures or sounds."""

    def alone(make: Maker) -> Callable[[np.random.Generator, Split], list[Sample]]:
        return lambda rng, split: [make(rng, split)]

    def say(rng: np.random.Generator, split: Split, kind: str | None = None) -> Sample:
        return speech.make(rng, split, clips, kind=kind)

    return {
        "pictures": Pool(encoder, scene_group),
        "words": Pool(encoder, alone(words.make)),
        "pairs": Pool(encoder, alone(pairs.make), uses=6),
        "spoken words": Pool(encoder, alone(lambda rng, split: say(rng, split, "word"))),
        "speech": Pool(encoder, alone(say)),
        "video": Pool(encoder, alone(films.make), uses=6),
        "mixed": Pool(encoder, alone(mixed.make), uses=6),
        "sounds": Pool(encoder, alone(sounds.make), uses=6),
    }
