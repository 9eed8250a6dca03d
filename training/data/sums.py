"""Sums: small arithmetic with one number as the answer, and comparisons of two numbers.

Held out are a tenth of all pairs of numbers of two digits.
"""

import zlib

import numpy as np

from training.data.dice import Dice
from training.data.sample import Sample, Split
from training.data.vocabulary import number_words
from training.data.wording import Wording

SUM = Wording(
    (
        "What is {x}?", "{x}", "{x} = ?", "Calculate {x}.", "How much is {x}?", "Compute {x}.", "What does {x} give?",
        "Tell me {x}.", "What is the result of {x}?", "Solve {x}.", "{x} is what?", "What do you get for {x}?", "{x}=",
        "Work out {x}.", "What's {x}?", "Can you calculate {x}?",
    ),
    ("What number is {x}?", "Give the result of {x}.", "How many is {x}?", "Find {x}."),
)  # fmt: skip
STORY = Wording(
    (
        "{name} has {a} {things} and gets {b} more. How many {things} does {name} have now?",
        "There are {a} {things} on the table. {name} brings {b} more. How many {things} are there?",
        "{name} buys {a} {things} and then {b} {things}. How many {things} in total?",
        "A box holds {a} {things}, another one {b}. How many {things} are there together?",
        "{name} sees {a} {things} today and {b} {things} later. How many {things} is that?",
        "First there are {a} {things}, then {b} more come. How many {things} are there?",
        "{a} {things} and {b} {things} make how many {things}?",
        "I have {a} {things}. You give me {b}. How many have I?",
    ),
    (
        "{name} owns {a} {things} and finds {b} others. How many is that together?",
        "Add {b} {things} to {a} {things}. How many are there?",
    ),
)  # fmt: skip
LESS_STORY = Wording(
    (
        "{name} has {a} {things} and gives away {b}. How many {things} are left?",
        "There are {a} {things}. {name} takes {b}. How many {things} remain?",
        "{name} had {a} {things} and lost {b}. How many {things} does {name} have now?",
        "From {a} {things} I take away {b}. How many {things} are left?",
        "{a} {things} were there, {b} are gone. How many remain?",
        "{name} eats {b} of {a} {things}. How many {things} are left?",
        "I have {a} {things} and sell {b}. How many {things} do I keep?",
        "Out of {a} {things} {b} break. How many are whole?",
    ),
    (
        "{name} starts with {a} {things} and drops {b}. How many are left?",
        "Take {b} {things} from {a} {things}. How many stay?",
    ),
)  # fmt: skip
LARGER = Wording(
    (
        "Which is larger, {a} or {b}?", "Which number is bigger: {a} or {b}?", "What is more, {a} or {b}?",
        "Larger: {a} or {b}?", "Which of {a} and {b} is the larger number?", "Tell me the bigger one of {a} and {b}.",
        "Is {a} or {b} larger?", "What is the maximum of {a} and {b}?",
    ),
    ("Say which is greater, {a} or {b}.", "The larger one of {a} and {b}?"),
)  # fmt: skip
THINGS = ("apples", "books", "coins", "eggs", "cards", "pens", "stones", "cups", "balls", "cakes", "stamps", "keys")
PEOPLE = ("Anna", "Ben", "Clara", "David", "Emma", "Leo", "Maria", "Sam", "Tom", "Nina")


def is_held_out(a: int, b: int) -> bool:
    """Whether a pair of numbers, both of two digits, is kept out of training."""
    return a > 9 and b > 9 and zlib.crc32(f"{a} {b}".encode()) % 10 == 0


def draw_pair(dice: Dice, split: Split) -> tuple[str, int, int]:
    """An operation (+, -, x) and its numbers; a difference is never negative."""
    while True:
        kind = dice.uniform()
        if kind < 0.17:
            return "x", dice.integer(0, 10), dice.integer(0, 10)
        high = 9 if kind < 0.5 else 99
        a, b = dice.integer(0, high), dice.integer(0, high if dice.chance(0.7) else 9)
        operation = "+" if dice.chance(0.55) else "-"
        if operation == "-" and a < b:
            a, b = b, a
        if a < 10 or b < 10 or is_held_out(a, b) == (split == "held_out"):
            return operation, a, b


def result(operation: str, a: int, b: int) -> int:
    """The value of `a operation b`."""
    return a + b if operation == "+" else a - b if operation == "-" else a * b


def explain(operation: str, a: int, b: int) -> str:
    """The steps of a sum, tens and ones apart."""
    total = result(operation, a, b)
    if operation == "x" or b == 0 or (a < 10 and b < 10):
        return f"{a} {operation} {b} = {total}"
    tens, ones = b // 10 * 10, b % 10
    if not tens or not ones:
        return f"{a} {operation} {b} = {total}"
    half = result(operation, a, tens)
    return f"{b} is {tens} and {ones}. {a} {operation} {tens} = {half}, {half} {operation} {ones} = {total}"


def written(operation: str, a: int, b: int, dice: Dice) -> str:
    """A sum in signs or words: `3 + 4`, `3+4`, `three plus four`."""
    form = dice.uniform()
    words = {"+": "plus", "-": "minus", "x": "times"}
    if form < 0.55:
        return f"{a} {operation} {b}"
    if form < 0.7:
        return f"{a}{operation}{b}"
    if form < 0.85:
        return f"{a} {words[operation]} {b}"
    if form < 0.93 or operation != "x":
        return f"{' '.join(number_words(a))} {words[operation]} {' '.join(number_words(b))}"
    return f"{a} * {b}"


def make(rng: np.random.Generator, split: Split, *, reasoning_share: float = 0.25) -> Sample:
    """A sum, a comparison or a little story; with its steps as reasoning in a share of `reasoning_share`."""
    dice = Dice(rng)
    operation, a, b = draw_pair(dice, split)
    facts = {"kind": "sum", "operation": operation, "numbers": (a, b)}
    if dice.chance(0.06):
        question = LARGER.say(dice, split, a=a, b=b)
        return Sample("sums", (question,), str(max(a, b)), facts={**facts, "kind": "larger"})
    if operation != "x" and dice.chance(0.16):
        wording = STORY if operation == "+" else LESS_STORY
        question = wording.say(dice, split, a=a, b=b, things=dice.pick(THINGS), name=dice.pick(PEOPLE))
    else:
        question = SUM.around(dice, split, written(operation, a, b, dice))
    reasoning = explain(operation, a, b) if dice.chance(reasoning_share) else None
    return Sample("sums", (question,), str(result(operation, a, b)), reasoning=reasoning, facts=facts)
