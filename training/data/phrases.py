"""Spoken phrases: a small grammar over the closed vocabulary, 1 to 9 words.

A phrase of three words or more belongs to exactly one split, by a hash of its text; so no held-out phrase was heard in
training, while all its words were.
"""

import re
import zlib

from training.data import vocabulary as words
from training.data.dice import Dice
from training.data.sample import Split

HELD_OUT_SHARE = 8  # one phrase in eight

TEMPLATES = (
    "the {colour} {shape}", "a {colour} {shape}", "{colour} {shape}", "{size} {colour} {shape}",
    "a {size} {shape}", "the {size} {shape} is {colour}", "the {shape} is {colour}", "the {thing} is {colour}",
    "the {colour} {shape} is {side} the {colour} {shape}", "the {shape} is {side} the {shape}",
    "a {colour} {shape} and a {colour} {shape}", "the {shape} is in the middle", "the {animal} is in the {thing}",
    "turn on the {thing}", "turn off the {thing}", "turn the {thing} {onoff}", "please turn {onoff} the {thing}",
    "turn {way}", "go {way}", "move {way}", "move the {shape} {way}", "move the {colour} {shape} to the {lr}",
    "go {way} and turn {way}", "{act} the {thing}", "please {act} the {thing}", "{act} the {colour} {thing}",
    "{act} the {thing} please", "open the {thing} and close the {thing}", "play the music", "stop the music please",
    "start the {thing}", "put the {thing} on the table", "put the {thing} in the box", "give me the {thing}",
    "give me {number} {plural}", "show me the {thing}", "show me a {animal}", "show me {number} {plural}",
    "find the {colour} {thing}", "find the {animal}", "count the {plural}", "call me {when}", "press the {colour} key",
    "call number {digits}", "the number is {digits}", "number {number}", "page {number}", "go to page {number}",
    "wait {number} minute", "say {number}", "press {digit}", "say it please", "{number} plus {number}",
    "{digit} minus {digit}", "what is {number} plus {number}", "what is {digit} minus {digit}",
    "what colour is the {shape}", "what colour is the {size} {shape}", "what colour is the {thing}",
    "what shape is {colour}", "what shape is the {colour} object", "which shape is {colour}",
    "what is in the middle", "what is in the picture", "what is at the {tb} {lr}", "what is at the {tb}",
    "what is on the {lr}", "what is this", "what is that", "what is it", "where is the {shape}",
    "where is the {colour} {shape}", "where is the {thing}", "where is the {animal}", "where are you",
    "how many {plural} are there", "how many objects are there", "how many {colour} {plural} are there",
    "how many {colour} objects are there", "how are you", "is there a {colour} {shape}", "is there a {shape}",
    "is the {shape} {colour}", "is this a {shape}", "which is {colour}", "can you help me",
    "this is a {animal}", "this is not a {animal}", "it is a {quality} {thing}", "the {animal} is {quality}",
    "a {quality} {animal} and a {quality} {animal}", "{when} in the {daytime}", "good {daytime}",
    "good {daytime} to you",
    "hello {animal}", "yes please", "no it is not", "the {ordinal} word is {any}", "the next word is {any}",
    "you can do it", "the {thing} and the {thing}", "the {animal} and the {animal}", "{number} {plural}",
    "the {thing} is not {onoff}", "is the {thing} {onoff}", "take the {thing} to the {thing}", "save the {thing}",
    "do not {act} the {thing}", "the {tb} {lr} {shape} is {colour}", "the {thing} is {side} the {thing}",
)  # fmt: skip

_ARTICLE = re.compile(r"\ba(?= [aeiou])")
SIDES = ("left of", "right of", "above", "below", "beside", "next to")
SLOTS = {
    "colour": words.COLOURS,
    "shape": words.SHAPES,
    "plural": tuple(words.PLURALS.values()),
    "size": words.SIZES,
    "thing": words.THINGS,
    "animal": words.ANIMALS,
    "quality": words.QUALITIES,
    "side": SIDES,
    "way": words.DIRECTIONS,
    "lr": ("left", "right"),
    "tb": ("top", "bottom"),
    "onoff": ("on", "off"),
    "act": ("open", "close", "start", "stop", "find", "show", "take", "move", "pick", "press", "play"),
    "when": ("today", "tomorrow"),
    "daytime": ("morning", "evening", "night", "day"),
    "ordinal": ("first", "last", "next"),
    "digit": words.DIGITS,
    "any": words.CONTENT_WORDS,
}


def is_held_out(text: str) -> bool:
    """Whether a phrase belongs to the held-out split; phrases of one or two words belong to both."""
    return text.count(" ") >= 2 and zlib.crc32(text.encode()) % HELD_OUT_SHARE == 0


def _fill(template: str, dice: Dice) -> str:
    """Replace every slot of a template by a word, each on its own."""
    out = []
    for token in template.split():
        if not token.startswith("{"):
            out.append(token)
        elif token == "{number}":
            out.append(" ".join(words.number_words(dice.integer(0, 99 if dice.chance(0.9) else 199))))
        elif token == "{digits}":
            out.append(" ".join(dice.pick(words.DIGITS) for _ in range(dice.integer(2, 5))))
        else:
            out.append(dice.pick(SLOTS[token[1:-1]]))
    return _ARTICLE.sub("an", " ".join(out))


def draw_phrase(dice: Dice) -> str:
    """A phrase of either split: a sentence, a digit string, a number or words in any order."""
    kind = dice.uniform()
    if kind < 0.66:
        return _fill(dice.pick(TEMPLATES), dice)
    if kind < 0.78:
        return " ".join(dice.pick(words.DIGITS) for _ in range(dice.integer(2, 7)))
    if kind < 0.82:
        return " ".join(words.number_words(dice.integer(11, 199)))
    return " ".join(dice.pick(words.SPOKEN_ALONE) for _ in range(dice.integer(2, 6)))


def make_phrase(dice: Dice, split: Split) -> str:
    """A phrase of the split, at least two words."""
    while True:
        phrase = draw_phrase(dice)
        if phrase.count(" ") < 1:
            continue
        if is_held_out(phrase) == (split == "held_out"):
            return phrase
