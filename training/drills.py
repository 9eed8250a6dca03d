"""Drills: bare exercises that later tasks need: copying, looking up, naming the next; many sums or words at a time.

Short questions in the chat format with the closed vocabulary's words; a list is asked about several times.
"""

import numpy as np

from training.data import strings, sums
from training.data.dice import Dice
from training.data.prose import COMMON_VERBS, PLAIN_WORDS
from training.data.sample import Sample, Split
from training.data.vocabulary import CONTENT_WORDS
from training.prompts import Example, Prompter
from training.sources import Group, Source

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
NAMES_IN_CODE = (*COMMON_VERBS, *PLAIN_WORDS, *(f"{verb}_{word}" for verb in COMMON_VERBS for word in PLAIN_WORDS[:20]))
"""Words that the vocabulary mostly lacks, alone and as names of tools."""


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
    asked = dice.some(range(count), 8)
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


def repeats(prompter: Prompter) -> Source:
    """Bare runs of random tokens, twice in a row; the second run is to be foretold.

    A fresh trunk learns this within a hundred steps when it sees little else, and hardly ever when it does not.
    """
    known = np.array(sorted({i for word in CONTENT_WORDS for i in prompter.encode(" " + word)}))

    def draw(rng: np.random.Generator, split: Split) -> Group:
        count = int(rng.integers(3, 40))
        once = rng.choice(known, count, replace=count > len(known) // 2 or rng.random() < 0.3)
        ids = np.concatenate([once, once])
        return [Example(ids, ids.copy(), count + 1, "repeats", count + 1)]

    return draw


def far_repeats(prompter: Prompter, length: int) -> Source:
    """Half a row of words, spelled names and numbers, and the same again: looking back further than a window.

    What is spelled repeats its letters over and over, so one letter before is not enough to know the next: several are.
    Only this taught calls of tools, whose names stand hundreds of tokens before they are used.
    """
    signs = (" ", "\n", ", ", "_", ">", "</name>\n<name>", '": "', ": ", "=")

    def draw(rng: np.random.Generator, split: Split) -> Group:
        dice = Dice(rng)
        wanted, sign = dice.integer(length // 6, length // 2 - 4), dice.pick(signs)
        is_spelled = dice.chance(0.7)
        once: list[int] = []
        while len(once) < wanted:
            word = dice.pick(NAMES_IN_CODE) if is_spelled and dice.chance(0.8) else _item(dice)
            once += prompter.encode(word + sign)
        ids = np.array([*once[:wanted], *once[:wanted]])
        return [Example(ids, ids.copy(), wanted + 1, "far repeats", wanted + 1)]

    return draw


def long_copy(prompter: Prompter, dice: Dice) -> Group:
    """Dozens of tokens again, forwards or backwards: every one of them teaches looking back."""
    count, kind = dice.integer(8, 40), dice.uniform()
    if kind < 0.4:
        items = dice.some(CONTENT_WORDS, count)
    elif kind < 0.7:
        items = [dice.pick(_LETTERS) for _ in range(count)]
    elif kind < 0.85:
        items = [dice.pick("0123456789") for _ in range(count)]
    else:
        items = [_item(dice) for _ in range(count // 3)]
    joint = dice.pick((" ", " ", ", ", "-", "\n"))
    if dice.chance(0.7):
        ask = dice.pick(("Copy: {}", "Repeat: {}", "Repeat this: {}", "Copy this text: {}", "Say: {}", "Echo: {}"))
        return [prompter.example(Sample("drill long copy", (ask.format(joint.join(items)),), joint.join(items)))]
    ask = dice.pick(("Backwards: {}", "Reverse the list: {}", "Say it from the end: {}", "In reverse order: {}"))
    sample = Sample("drill long reverse", (ask.format(joint.join(items)),), joint.join(items[::-1]))
    return [prompter.example(sample)]


def several_sums(prompter: Prompter, dice: Dice) -> Group:
    """A list of sums, of which the results are wanted in order: much practice in few tokens."""
    pairs = [sums.draw_pair(dice, "train") for _ in range(dice.integer(3, 9))]
    joint = dice.pick((", ", "\n", "; "))
    asked = joint.join(f"{a} {sign} {b}" for sign, a, b in pairs)
    ask = dice.pick(("Calculate: {}", "{}", "Solve these: {}", "Results of {}", "{} = ?", "Work out: {}"))
    answer = joint.join(str(sums.result(*pair)) for pair in pairs)
    return [prompter.example(Sample("drill sums", (ask.format(asked),), answer))]


def several_words(prompter: Prompter, dice: Dice) -> Group:
    """A list of words to be spelled, spelled backwards or counted, one after the other."""
    words = [dice.pick(strings.SHORT_WORDS) for _ in range(dice.integer(2, 7))]
    kind = dice.pick(("back", "back", "back", "spell", "length", "capitals"))
    ask, change = {
        "back": ("Spell each word backwards: {}", lambda word: word[::-1]),
        "spell": ("Spell each word: {}", "-".join),
        "length": ("How many letters has each word? {}", lambda word: str(len(word))),
        "capitals": ("Each in capital letters: {}", str.upper),
    }[kind]
    answer = ", ".join(change(word) for word in words)
    return [prompter.example(Sample(f"drill {kind}", (ask.format(", ".join(words)),), answer))]


def drills(prompter: Prompter) -> Source:
    """The source of drills in looking back."""

    def draw(rng: np.random.Generator, split: Split) -> Group:
        dice = Dice(rng)
        kind = dice.uniform()
        if kind < 0.45:
            return lookup(prompter, dice)
        if kind < 0.7:
            return copy(prompter, dice)
        while True:
            group = long_copy(prompter, dice)
            if len(group[0]) <= 200:
                return group

    return draw


def lists(prompter: Prompter) -> Source:
    """The source of lists of sums and of words."""

    def draw(rng: np.random.Generator, split: Split) -> Group:
        dice = Dice(rng)
        return (several_sums if dice.chance(0.5) else several_words)(prompter, dice)

    return draw
