"""Needles: one fact told somewhere in a long, dull text and asked for at its end. Made by rule, of fixed wording.

Only layers that see the whole context can answer: sliding windows have long passed the fact. No files are needed, so
the questions can have any length.
"""

import random
from collections.abc import Callable

from mimo_cli.evaluation.item import Item

TASK = "needle"
WHO = (
    *("The old man", "A young woman", "My neighbour", "The teacher", "A small child", "The doctor", "The farmer"),
    *("A tourist", "The baker", "Our driver", "The gardener", "A student", "The captain", "The painter", "Somebody"),
    "The postman",
)
DID = (
    *("walked along", "looked at", "thought about", "talked about", "waited near", "passed by", "sat beside"),
    *("read about", "wrote about", "dreamed of", "went past", "asked about", "heard of", "pointed at", "stood near"),
    "slept near",
)
WHAT = (
    *("the river", "the quiet street", "the old bridge", "the market", "the long road", "the wooden fence"),
    *("the little shop", "the green hill", "the railway station", "the tall trees", "the empty house"),
    *("the village school", "the wide field", "the harbour", "the stone wall", "the narrow path"),
)
WHEN = (
    *("in the morning", "after lunch", "before dinner", "on a rainy day", "every summer", "last winter"),
    *("for an hour", "without a word", "with a smile", "again and again", "late at night", "at noon", "for a while"),
    "once a week",
)
WEATHER = (
    *("It was a calm day.", "The wind was cold.", "Then it began to rain.", "The sky was clear."),
    *("Nobody was in a hurry.", "The birds were singing.", "It was getting dark.", "The air was fresh."),
    *("Nothing else happened.", "Time passed slowly."),
)
"""Parts of sentences that tell nothing."""

NEEDLE = "The secret number is {number}."
QUESTION = "What is the secret number?"

CountTokens = Callable[[str], int]


def needle_items(count: int, context_tokens: int, count_tokens: CountTokens, seed: int = 0) -> list[Item]:
    """Return questions whose prompts have nearly, and at most, `context_tokens`; needles lie evenly from end to end.

    count_tokens tells how long the whole prompt is for a user's text. The kind of an item is the part of the text that
    the needle is in: early, middle or late.
    """
    items = []
    for i in range(count):
        generator = random.Random(f"{seed}/{i}")
        depth, number = (i + 0.5) / count, str(generator.randint(1000, 9999))
        text = haystack(number, depth, generator, context_tokens, count_tokens)
        kind = ("early", "middle", "late")[int(depth * 3)]
        items.append(Item(f"{TASK}-{i:03d}", TASK, kind, ({"role": "user", "content": text},), (number,)))
    return items


def haystack(
    number: str, depth: float, generator: random.Random, context_tokens: int, count_tokens: CountTokens
) -> str:
    """Return filler with the needle at `depth` (0 to 1) of its sentences, and the question behind it."""
    filler = [filler_sentence(generator) for _ in range(context_tokens // 3)]  # more than enough

    def text(sentences: int) -> str:
        place = round(depth * sentences)
        told = [*filler[:place], NEEDLE.format(number=number), *filler[place:sentences]]
        return f"{' '.join(told)}\n{QUESTION}"

    low, high = 0, len(filler)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if count_tokens(text(middle)) <= context_tokens else (low, middle - 1)
    return text(low)


def filler_sentence(generator: random.Random) -> str:
    """Return one sentence that says nothing of use."""
    if generator.random() < 0.15:
        return generator.choice(WEATHER)
    who, did, what, when = (generator.choice(words) for words in (WHO, DID, WHAT, WHEN))
    return f"{who} {did} {what} {when}."
