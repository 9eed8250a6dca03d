"""Strings: copying, reversing, sorting, counting and changing the case of words, letters and numbers."""

from collections.abc import Callable

import numpy as np

from training.data.dice import Dice
from training.data.prose import NAMES, PLAIN_WORDS, filler
from training.data.sample import Sample, Split
from training.data.vocabulary import CONTENT_WORDS
from training.data.wording import Wording

COPY = Wording(
    (
        "Repeat: {x}", "Copy: {x}", "Say: {x}", "Repeat after me: {x}", "Write exactly this: {x}",
        "Copy this text: {x}", "Echo {x}", "Please repeat {x}", "Give back this text: {x}", "Write: {x}",
        "Copy the following: {x}", "Say the following: {x}", "Repeat the following words: {x}", "Type this again: {x}",
    ),
    ("Say after me: {x}", "Return this text: {x}", "Write this down again: {x}"),
)  # fmt: skip
REVERSE_WORDS = Wording(
    (
        "Reverse the order of the words: {x}", "Reverse the list: {x}", "Write these words backwards: {x}",
        "Put the words in reverse order: {x}", "Say the words in reverse order: {x}", "Reverse the word order of {x}",
        "Turn the order of these words around: {x}", "List these from last to first: {x}",
        "Words in reverse order: {x}", "Give these items in reverse: {x}",
    ),
    (
        "Start with the last word and go back: {x}", "Write the words from last to first: {x}",
        "Flip the order of the words: {x}",
    ),
)  # fmt: skip
REVERSE_LETTERS = Wording(
    (
        "Spell {x} backwards.", "Reverse the letters of {x}.", "Write {x} backwards.", "Reverse the word {x}.",
        "What is {x} backwards?", "Reverse {x}.", "Turn the word {x} around.", "What is {x} spelled backwards?",
        "Write the letters of {x} in reverse order.", "Reverse this word: {x}",
    ),
    ("Say {x} from back to front.", "How is {x} written backwards?", "Flip the letters of {x}."),
)  # fmt: skip
SORT_WORDS = Wording(
    (
        "Sort these words: {x}", "Put these words in alphabetical order: {x}", "Sort alphabetically: {x}",
        "Order these words: {x}", "Arrange the words from a to z: {x}", "Sort the list: {x}",
        "Alphabetical order please: {x}", "Sort the words {x}", "List these words alphabetically: {x}",
    ),
    ("Bring the words into alphabetical order: {x}", "Which order do these words have in a dictionary? {x}"),
)  # fmt: skip
SORT_NUMBERS = Wording(
    (
        "Sort these numbers: {x}", "Put these numbers in order: {x}", "Sort from small to large: {x}",
        "Order the numbers: {x}", "Arrange these numbers: {x}", "Sort the list: {x}", "Sort {x}",
        "Numbers in rising order: {x}", "Write these numbers from smallest to largest: {x}",
    ),
    ("Bring these numbers into order: {x}", "Start with the smallest: {x}"),
)  # fmt: skip
SORT_DOWN = Wording(
    (
        "Sort from large to small: {x}", "Put these numbers in falling order: {x}", "Sort in descending order: {x}",
        "Write these numbers from largest to smallest: {x}", "Sort these numbers, largest first: {x}",
        "Order from big to small: {x}", "Arrange from largest to smallest: {x}", "Descending order please: {x}",
    ),
    ("Begin with the largest: {x}", "Bring these into descending order: {x}"),
)  # fmt: skip
COUNT_LETTERS = Wording(
    (
        "How many letters are in {x}?", "How many letters has {x}?", "Count the letters of {x}.",
        "How long is the word {x}?", "How many letters does the word {x} have?", "Number of letters in {x}?",
        "What is the length of {x}?", "Letters in {x}?", "Tell me how many letters {x} has.",
    ),
    ("Say how many letters make up {x}.", "Of how many letters is {x} made?"),
)  # fmt: skip
COUNT_WORDS = Wording(
    (
        "How many words are there: {x}", "Count the words: {x}", "How many words has this: {x}", "Number of words: {x}",
        "How many words do you count in: {x}", "How many words are in this list: {x}", "Count these words: {x}",
        "Tell me how many words this has: {x}",
    ),
    ("Say how many words these are: {x}", "How many words stand here: {x}"),
)  # fmt: skip
UPPER = Wording(
    (
        "Write {x} in capital letters.", "Write in capitals: {x}", "Uppercase {x}", "Put {x} in upper case.",
        "Convert to uppercase: {x}", "In capital letters: {x}", "Make {x} uppercase.", "Turn {x} into capital letters.",
        "Capital letters please: {x}",
    ),
    ("Use only capitals: {x}", "Change {x} to upper case."),
)  # fmt: skip
LOWER = Wording(
    (
        "Write {x} in small letters.", "Write in lower case: {x}", "Lowercase {x}", "Put {x} in lower case.",
        "Convert to lowercase: {x}", "In small letters: {x}", "Make {x} lowercase.", "Turn {x} into small letters.",
        "Small letters please: {x}",
    ),
    ("Use only small letters: {x}", "Change {x} to lower case."),
)  # fmt: skip
PICK = Wording(
    (
        "What is the {which} word: {x}", "Give the {which} word of: {x}", "Name the {which} word in this list: {x}",
        "Which word is {which}: {x}", "Say the {which} word: {x}", "The {which} word of these: {x}",
        "Tell me the {which} item: {x}", "Pick the {which} word: {x}",
    ),
    ("Which one is the {which} word? {x}", "Write only the {which} word: {x}"),
)  # fmt: skip
ORDINALS = ("first", "second", "third", "fourth", "fifth")
WORDS = tuple(dict.fromkeys((*PLAIN_WORDS, *CONTENT_WORDS)))
SHORT_WORDS = tuple(word for word in WORDS if len(word) <= 6)


def _quoted(text: str, dice: Dice) -> str:
    """The text plain or in quotation marks."""
    return text if dice.chance(0.7) else f'"{text}"' if dice.chance(0.6) else f"'{text}'"


def _words(dice: Dice, low: int, high: int) -> list[str]:
    return [dice.pick(WORDS) for _ in range(dice.integer(low, high))]


def copy(dice: Dice, split: Split) -> tuple[str, str]:
    """Question and answer: words, numbers, names, letters or a sentence, copied."""
    kind = dice.uniform()
    if kind < 0.45:
        text = " ".join(_words(dice, 1, 8))
    elif kind < 0.6:
        text = " ".join(str(dice.integer(0, 10 ** dice.integer(1, 4))) for _ in range(dice.integer(1, 6)))
    elif kind < 0.7:
        text = " ".join(dice.pick(NAMES) for _ in range(dice.integer(1, 5)))
    elif kind < 0.85:
        text = filler(dice)
    else:
        letters = "abcdefghijklmnopqrstuvwxyz" if dice.chance(0.6) else "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
        text = "".join(dice.pick(letters) for _ in range(dice.integer(2, 8)))
    return COPY.around(dice, split, _quoted(text, dice)), text


def reverse(dice: Dice, split: Split) -> tuple[str, str]:
    """Question and answer: a list of words, a row of digits, or the letters of a word, backwards."""
    kind = dice.uniform()
    if kind < 0.5:
        words = _words(dice, 2, 6)
        between = ", " if dice.chance(0.3) else " "
        return REVERSE_WORDS.around(dice, split, between.join(words)), between.join(reversed(words))
    if kind < 0.6:
        digits = [str(dice.integer(0, 9)) for _ in range(dice.integer(3, 7))]
        return REVERSE_WORDS.around(dice, split, " ".join(digits)).replace("words", "digits"), " ".join(
            reversed(digits)
        )
    word = dice.pick(SHORT_WORDS)
    if dice.chance(0.15):
        word = "".join(dice.pick("abcdefghijklmnopqrstuvwxyz") for _ in range(dice.integer(2, 5)))
    return REVERSE_LETTERS.around(dice, split, _quoted(word, dice)), word[::-1]


def sort(dice: Dice, split: Split) -> tuple[str, str]:
    """Question and answer: two to six words or numbers in order."""
    between = ", " if dice.chance(0.5) else " "
    if dice.chance(0.4):
        words = dice.some(PLAIN_WORDS, dice.integer(2, 5))
        return SORT_WORDS.around(dice, split, between.join(words)), between.join(sorted(words))
    high = dice.pick((9, 20, 99, 99))
    numbers = dice.some(range(high + 1), dice.integer(2, 6))
    down = dice.chance(0.25)
    wording = SORT_DOWN if down else SORT_NUMBERS
    ordered = sorted(numbers, reverse=down)
    return wording.around(dice, split, between.join(map(str, numbers))), between.join(map(str, ordered))


def count(dice: Dice, split: Split) -> tuple[str, str]:
    """Question and answer: letters of a word, or words of a list, in digits."""
    if dice.chance(0.7):
        word = dice.pick(WORDS)
        return COUNT_LETTERS.around(dice, split, _quoted(word, dice)), str(len(word))
    words = _words(dice, 1, 7)
    return COUNT_WORDS.around(dice, split, " ".join(words)), str(len(words))


def case(dice: Dice, split: Split) -> tuple[str, str]:
    """Question and answer: words in capitals or in small letters."""
    text = " ".join(_words(dice, 1, 3))
    if dice.chance(0.7):
        return UPPER.around(dice, split, text), text.upper()
    shown = text.upper() if dice.chance(0.6) else text.title()
    return LOWER.around(dice, split, shown), text


def pick(dice: Dice, split: Split) -> tuple[str, str]:
    """Question and answer: the first, last or some other word of a list."""
    words = _words(dice, 2, 6)
    index = dice.integer(0, min(len(words), 5) - 1)
    which = ORDINALS[index]
    if dice.chance(0.3):
        index, which = len(words) - 1, "last"
    between = ", " if dice.chance(0.5) else " "
    return PICK.say(dice, split, which=which, x="\0").replace("\0", between.join(words)), words[index]


KINDS: dict[str, Callable[[Dice, Split], tuple[str, str]]] = {
    "copy": copy, "reverse": reverse, "sort": sort, "count_letters": count, "case": case, "pick": pick,
}  # fmt: skip


def make(rng: np.random.Generator, split: Split, kind: str, *, reasoning_share: float = 0.2) -> Sample:
    """A sample of one kind of KINDS; sorting shows its steps as reasoning in a share of `reasoning_share`."""
    dice = Dice(rng)
    question, answer = KINDS[kind](dice, split)
    reasoning = None
    if kind == "sort" and dice.chance(reasoning_share):
        items = answer.split(", ") if ", " in answer else answer.split()
        reasoning = "First " + ", then ".join(items) + "."
    return Sample(kind, (question,), answer, reasoning=reasoning, facts={"kind": kind})
