"""Drills: bare exercises in looking back, which every later task needs: copying, looking up, naming the next.

Short questions in the chat format with the closed vocabulary's words; a list is asked about several times.
"""

import numpy as np

from training.data.dice import Dice
from training.data.sample import Sample, Split
from training.data.vocabulary import CONTENT_WORDS
from training.prompts import Prompter
from training.sources import Group, Source

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def _item(dice: Dice) -> str:
    kind = dice.uniform()
    if kind < 0.6:
        return dice.pick(CONTENT_WORDS)
    if kind < 0.8:
        return "".join(dice.pick("0123456789") for _ in range(dice.integer(1, 4)))
    return "".join(dice.pick(_LETTERS) for _ in range(dice.integer(2, 6)))


def lookup(prompter: Prompter, dice: Dice) -> Group:
    """Pairs of name and value, several names asked for."""
    count = dice.integer(2, 10)
    names = dice.some(CONTENT_WORDS, count)
    values = [_item(dice) for _ in names]
    link, gap = dice.pick((" is ", ": ", " = ", " has ")), dice.pick((", ", ". ", "; ", "\n"))
    facts = gap.join(f"{name}{link}{value}" for name, value in zip(names, values, strict=True))
    asks = dice.pick(("What is {}?", "{}?", "{}:", "Tell me {}.", "What has {}?", "Look up {}."))
    joint = dice.pick(("\n", " ", ". "))
    asked = dice.some(range(count), 4)
    return [
        prompter.example(Sample("drill lookup", (facts + joint + asks.format(names[i]),), values[i])) for i in asked
    ]


def copy(prompter: Prompter, dice: Dice) -> Group:
    """The same again; the first, the last, or the one behind a given one."""
    items = [_item(dice) for _ in range(dice.integer(1, 7))]
    text, kind = " ".join(items), dice.uniform()
    if kind < 0.6:
        ask = dice.pick(("Copy: {}", "Repeat: {}", "Repeat this: {}", "Copy this text: {}", "Say: {}", "Echo: {}"))
        return [prompter.example(Sample("drill copy", (ask.format(text),), text))]
    group = [
        Sample("drill first", (text + "\nFirst?",), items[0]),
        Sample("drill last", (text + "\nLast?",), items[-1]),
    ]
    at = dice.integer(0, len(items) - 1)
    if at + 1 < len(items) and items.count(items[at]) == 1:
        group.append(Sample("drill next", (f"{text}\nAfter {items[at]}?",), items[at + 1]))
    return [prompter.example(sample) for sample in group]


def drills(prompter: Prompter) -> Source:
    """The source of all drills."""

    def draw(rng: np.random.Generator, split: Split) -> Group:
        dice = Dice(rng)
        return lookup(prompter, dice) if dice.chance(0.55) else copy(prompter, dice)

    return draw
