"""Needles: one fact told somewhere in a long, dull text and asked for at its end. Made by rule, of fixed wording.

Only layers that see the whole context can answer: sliding windows have long passed the fact. No files are needed, so
the questions can have any length.
"""

import random
from collections.abc import Callable

from mimo_cli.evaluation.item import Item

TASK = "needle"
FILLER = (
    "The road goes over the hill.",
    "Rain falls on the old town.",
    "A dog sleeps by the door.",
    "The boat is small and green.",
    "We walk home in the evening.",
)
"""Sentences that tell nothing, in the order in which they come round."""

NEEDLE = "The magic number for {name} is {number}."
QUESTION = "What is the magic number for {name}?"
NAMES = ("river", "garden", "window", "forest", "table", "mountain", "bridge", "candle", "harbor", "island")

CountTokens = Callable[[str], int]


def needle_items(count: int, context_tokens: int, count_tokens: CountTokens, seed: int = 0) -> list[Item]:
    """Return questions whose prompts have nearly, and at most, `context_tokens`; needles lie evenly from end to end.

    count_tokens tells how long the whole prompt is for a user's text. The kind of an item is the part of the text that
    the needle is in: early, middle or late.
    """
    items = []
    for i in range(count):
        generator = random.Random(f"{seed}/{i}")
        depth = (i + 0.5) / count
        name, number = generator.choice(NAMES), str(generator.randint(100, 999))
        text = haystack(name, number, depth, generator.randrange(len(FILLER)), context_tokens, count_tokens)
        kind = ("early", "middle", "late")[int(depth * 3)]
        message = {"role": "user", "content": text}
        items.append(Item(f"{TASK}-{i:03d}", TASK, kind, (message,), (number,)))
    return items


def haystack(name: str, number: str, depth: float, first: int, context_tokens: int, count_tokens: CountTokens) -> str:
    """Return filler with the needle at `depth` (0 to 1) of its sentences, and the question."""
    needle, question = NEEDLE.format(name=name, number=number), QUESTION.format(name=name)

    def text(sentences: int) -> str:
        filler = [FILLER[(first + i) % len(FILLER)] for i in range(sentences)]
        filler.insert(round(depth * sentences), needle)
        return " ".join([*filler, question])

    # A round of filler always has the same tokens: one step lands near the wanted length, the rest is taken off.
    empty = count_tokens(text(0))
    per_round = max(count_tokens(text(20 * len(FILLER))) - empty, 1) / 20
    sentences = max(0, int((context_tokens - empty) / per_round * len(FILLER)) + 2)
    while sentences and count_tokens(text(sentences)) > context_tokens:
        sentences -= 1
    return text(sentences)
