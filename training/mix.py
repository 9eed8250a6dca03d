"""The mix: every source of examples by name, for rows of any length."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mimo_cli.chat.media_options import MediaOptions
from training.data import films, lookup, mixed, pairs, smalltalk, sounds, speech, strings, sums, system, tools, words
from training.data.sample import Sample, Split, dialogue
from training.data.speech_clips import ClipFolder
from training.drills import drills, far_repeats, lists, repeats
from training.feeder import CHUNK, Feeder
from training.media import ReadyGroup, ready_group
from training.pool import Encoder, Fetch, Pool, scene_group
from training.prompts import Prompter
from training.sources import Group, Source

USES = {"pairs": 6, "video": 4, "mixed": 6, "sounds": 6}
"""How often a group is served; those that cost most to draw, oftener."""

SEEN = {"pictures", "words", "pairs", "video", "mixed"}
HEARD = {"spoken words", "speech", "sounds", "mixed"}
"""Sources that need the vision tower, and those that need the codec."""

STRING_SHARES = {"copy": 0.22, "reverse": 0.38, "sort": 0.12, "count_letters": 0.1, "case": 0.08, "pick": 0.1}
TALK_SHARES = {"strings": 0.45, "sums": 0.3, "smalltalk": 0.25}
"""What the turns of a dialogue ask for."""

Maker = Callable[[np.random.Generator, Split], Sample]
MakeGroup = Callable[[np.random.Generator, Split], list[Sample]]
MakeReady = Callable[[np.random.Generator, Split], ReadyGroup]


def fitting(prompter: Prompter, make: MakeGroup, length: int) -> Source:
    """A source of text examples, alone or with a common beginning; those that do not fit a row are left out."""

    def draw(rng: np.random.Generator, split: Split) -> Group:
        while True:
            examples = [prompter.example(sample) for sample in make(rng, split)]
            fitting = [example for example in examples if len(example) <= length]
            if fitting:
                return fitting

    return draw


def alone(make: Maker) -> MakeGroup:
    """Groups of one sample."""
    return lambda rng, split: [make(rng, split)]


def text_sources(prompter: Prompter, length: int) -> dict[str, Source]:
    """Sources that need no tower, for rows of `length` tokens."""

    def measure(text: str) -> int:
        return len(prompter.encode(text))

    def look_up(rng: np.random.Generator, split: Split) -> Sample:
        return lookup.make(rng, split, tokens=(40, min(512, length - 70)), measure=measure)

    def look_up_several(rng: np.random.Generator, split: Split) -> list[Sample]:
        return lookup.make_group(rng, split, tokens=(30, min(512, length - 100)), measure=measure)

    def needle(rng: np.random.Generator, split: Split) -> Sample:
        return lookup.make_needle(rng, split, tokens=(60, length - 70), measure=measure)

    def string(rng: np.random.Generator, split: Split) -> Sample:
        return strings.make(rng, split, str(rng.choice(list(STRING_SHARES), p=list(STRING_SHARES.values()))))

    makers: dict[str, Maker] = {
        "lookup": look_up,
        "needle": needle,
        "strings": string,
        "sums": sums.make,
        "system": system.make,
        "smalltalk": smalltalk.make,
    }

    def talk(rng: np.random.Generator, split: Split) -> list[Sample]:
        kinds = rng.choice(list(TALK_SHARES), size=rng.integers(2, 5), p=list(TALK_SHARES.values()))
        said = [makers[str(kind)](rng, split) for kind in kinds]
        rule = str(rng.choice(system.NEUTRAL)) if rng.random() < 0.2 else None
        return dialogue([replace(sample, task=f"{sample.task} in a dialogue", system=rule) for sample in said])

    groups: dict[str, MakeGroup] = {name: alone(make) for name, make in makers.items()}
    groups |= {"lookups": look_up_several, "dialogues": talk, "tools": tools.make_group}
    return {
        "repeats": repeats(prompter),
        "drills": drills(prompter),
        "lists": lists(prompter),
        "far repeats": far_repeats(prompter, length),
        **{name: fitting(prompter, make, length) for name, make in groups.items()},
    }


def media_makers(
    prompter: Prompter, clips: ClipFolder
) -> dict[str, Callable[[np.random.Generator, Split], ReadyGroup]]:
    """What draws groups with media and makes them ready for the towers; needs no tower."""
    options = MediaOptions.of_checkpoint(prompter.config.processor)

    def say(kind: str | None) -> Maker:
        return lambda rng, split: speech.make(rng, split, clips, kind=kind)

    groups: dict[str, MakeGroup] = {
        "pictures": scene_group,
        "words": alone(words.make),
        "pairs": alone(pairs.make),
        "spoken words": alone(say("word")),
        "speech": alone(say(None)),
        "video": films.make_group,
        "mixed": alone(mixed.make),
        "sounds": alone(sounds.make),
    }
    return {name: _ready(make, options) for name, make in groups.items()}


def _ready(make: MakeGroup, options: MediaOptions) -> MakeReady:
    return lambda rng, split: ready_group(make(rng, split), options)


def media_sources(
    encoder: Encoder,
    makers: dict[str, MakeReady],
    feeder: Feeder | None = None,
) -> dict[str, Source]:
    """Sources of samples with media; training samples come from the feeder if there is one."""

    def fetch(name: str) -> Fetch:
        def draw(rng: np.random.Generator, split: Split) -> list[ReadyGroup]:
            if feeder is not None and split == "train":
                return feeder.take(name)
            return [makers[name](rng, split) for _ in range(CHUNK)]

        return draw

    return {name: Pool(encoder, fetch(name), uses=USES.get(name, 3)) for name in makers}
