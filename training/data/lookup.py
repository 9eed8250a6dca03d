"""Lookup: facts given earlier, filler between, one of them asked for.

Samples are 60 to 512 tokens long by default; longer ones, up to 4,096, by `tokens`. The needle is one fact in a fixed
wording in a text of any length. Answer form: the value alone ("blue", "4821", "Paris").
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from training.data.dice import Dice
from training.data.prose import JOBS, MONTHS, NAMES, PLAIN_WORDS, THINGS, TOWNS, filler
from training.data.sample import Sample, Split
from training.data.vocabulary import ANIMALS, COLOURS
from training.data.wording import Wording, spell

ASK = Wording(
    (
        "What is {x}?", "Tell me {x}.", "What was {x}?", "Do you remember {x}?", "I forgot {x}. What is it?",
        "Please give me {x}.", "Say {x}.", "Can you tell me {x}?", "Look up {x}.", "Name {x}.",
        "What did I say {x} is?", "What is {x} again?", "According to the text, what is {x}?",
        "What does the text say about {x}?",
    ),
    ("Find {x} in the text.", "Which value is given as {x}?", "Remind me: what is {x}?"),
)  # fmt: skip
ASK_PAIRS = Wording(
    (
        "What belongs to {x}?", "What is the value of {x}?", "Give the value of {x}.", "{x}?",
        "Which number belongs to {x}?", "Look up {x}.", "What stands beside {x}?", "Value of {x}?",
        "Tell me the value of {x}.",
    ),
    ("What is listed for {x}?", "Read the value of {x} from the list."),
)  # fmt: skip
BEFORE = (
    "Remember this.", "Read this text.", "Here is a text.", "Please remember the following.", "Read carefully.",
    "This is a story.", "Listen.", "Text:", "Keep this in mind.",
)  # fmt: skip
NOTED = ("Okay.", "Noted.", "I will remember it.")

NEEDLE = "The secret number is {x}."
NEEDLE_QUESTION = "What is the secret number?"


@dataclass(frozen=True)
class Relation:
    """A kind of fact: who or what has it, its values, and how it is stated and asked for."""

    keys: tuple[str, ...]
    value: Callable[[Dice], str]
    statements: tuple[str, ...]
    asked: tuple[str, ...]  # what follows "what is"
    direct: tuple[str, ...]  # whole questions


def _number(dice: Dice) -> str:
    digits = dice.pick((2, 3, 3, 4, 4))
    return str(dice.integer(10 ** (digits - 1), 10**digits - 1))


def _one_of(items: tuple[str, ...]) -> Callable[[Dice], str]:
    return lambda dice: dice.pick(items)


RELATIONS = (
    Relation(
        THINGS, _number,
        ("The code of the {k} is {v}.", "The {k} has the code {v}.", "Use {v} as the code of the {k}."),
        ("the code of the {k}", "the code for the {k}"),
        ("Which code has the {k}?", "Which code opens the {k}?"),
    ),
    Relation(
        THINGS, _number,
        ("The price of the {k} is {v}.", "The {k} costs {v} coins.", "They sold the {k} for {v} coins."),
        ("the price of the {k}",),
        ("How much does the {k} cost?", "How many coins is the {k}?"),
    ),
    Relation(
        THINGS, _one_of(COLOURS),
        ("The {k} is {v}.", "The colour of the {k} is {v}.", "They painted the {k} {v}."),
        ("the colour of the {k}", "the color of the {k}"),
        ("What colour is the {k}?", "Which color does the {k} have?"),
    ),
    Relation(
        THINGS, _one_of(NAMES),
        ("The {k} belongs to {v}.", "The owner of the {k} is {v}.", "{v} owns the {k}."),
        ("the owner of the {k}",),
        ("Who owns the {k}?", "To whom does the {k} belong?"),
    ),
    Relation(
        NAMES, _one_of(COLOURS),
        ("The favourite colour of {k} is {v}.", "{k} likes {v} best of all colours.", "{k}'s favourite colour is {v}."),
        ("the favourite colour of {k}", "{k}'s favourite color", "the colour {k} likes best"),
        ("Which colour does {k} like best?",),
    ),
    Relation(
        NAMES, _one_of(TOWNS),
        ("{k} lives in {v}.", "The home town of {k} is {v}.", "{k} has a house in {v}."),
        ("the home town of {k}", "the town where {k} lives"),
        ("Where does {k} live?", "In which town does {k} live?"),
    ),
    Relation(
        NAMES, _one_of(ANIMALS),
        ("{k} has a {v}.", "The pet of {k} is a {v}.", "{k} keeps a {v} at home."),
        ("the pet of {k}", "the animal of {k}"),
        ("Which pet does {k} have?", "What animal has {k}?"),
    ),
    Relation(
        NAMES, _number,
        ("The phone number of {k} is {v}.", "Call {k} at {v}.", "{k} has the phone number {v}."),
        ("the phone number of {k}", "the number of {k}", "{k}'s phone number"),
        ("Which number must I call for {k}?", "How can {k} be called?"),
    ),
    Relation(
        NAMES, _one_of(PLAIN_WORDS),
        ("The password of {k} is {v}.", "{k} uses the password {v}.", "{k}'s password is {v}."),
        ("the password of {k}", "{k}'s password"),
        ("Which password does {k} use?",),
    ),
    Relation(
        NAMES, _one_of(JOBS),
        ("{k} works as a {v}.", "{k} is a {v}.", "The job of {k} is {v}."),
        ("the job of {k}", "{k}'s job"),
        ("What does {k} work as?", "Which job does {k} have?"),
    ),
    Relation(
        NAMES, _one_of(MONTHS),
        ("The birthday of {k} is in {v}.", "{k} was born in {v}.", "{k} has a birthday in {v}."),
        ("the birthday of {k}", "the month of {k}'s birthday"),
        ("When was {k} born?", "In which month was {k} born?"),
    ),
)  # fmt: skip


def estimate_tokens(text: str) -> int:
    """About the number of tokens of plain English in a small vocabulary."""
    return len(text) // 4


def _length(dice: Dice, tokens: tuple[int, int]) -> int:
    """A length in tokens; short ones are more frequent, every octave alike."""
    low, high = tokens
    return round(low * (high / low) ** dice.uniform())


def _fill(sentences: list[str], length: int, dice: Dice, measure: Callable[[str], int]) -> str:
    """The sentences in order with filler between them until the text is about `length` tokens long."""
    missing = length - sum(measure(sentence) for sentence in sentences)
    padding = []
    while missing > 0:
        padding.append(filler(dice))
        missing -= measure(padding[-1]) + 1
    total = len(padding) + len(sentences)
    places = set(dice.some(range(total), len(sentences)))
    given, between = iter(sentences), iter(padding)
    return " ".join(next(given) if i in places else next(between) for i in range(total))


def make(
    rng: np.random.Generator,
    split: Split,
    *,
    tokens: tuple[int, int] = (40, 512),
    measure: Callable[[str], int] = estimate_tokens,
    pairs_share: float = 0.25,
) -> Sample:
    """One fact out of one to eight asked for, after filler; `measure` counts the tokens of a text."""
    dice = Dice(rng)
    if dice.chance(pairs_share):
        return _pairs(dice, split)
    relation = dice.pick(RELATIONS)
    several = dice.integer(1, 6)
    keys = dice.some(relation.keys, several)
    values = [relation.value(dice) for _ in keys]
    # Facts of another kind stand between, so that the kind alone does not point at the answer.
    other = dice.pick(RELATIONS)
    extra = (
        []
        if other is relation
        else [(other, key, other.value(dice)) for key in dice.some(other.keys, dice.integer(0, 2))]
    )
    facts = dice.shuffled([(relation, key, value) for key, value in zip(keys, values, strict=True)] + extra)
    sentences = [dice.pick(kind.statements).format(k=key, v=value) for kind, key, value in facts]
    text = _fill(sentences, _length(dice, tokens), dice, measure)
    chosen = dice.integer(0, several - 1)
    question = _ask(relation, keys[chosen], dice, split)
    labels = {"kind": "fact", "key": keys[chosen], "facts": len(facts)}
    if dice.chance(0.25):
        turn = (f"{dice.pick(BEFORE)} {text}", dice.pick(NOTED))
        return Sample("lookup", (question,), values[chosen], turns=(turn,), facts=labels)
    form = dice.uniform()
    whole = f"{text} {question}" if form < 0.6 else f"{text}\n{question}" if form < 0.85 else f"{question}\n{text}"
    if dice.chance(0.3):
        whole = f"{dice.pick(BEFORE)} {whole}"
    return Sample("lookup", (whole,), values[chosen], facts=labels)


def make_group(
    rng: np.random.Generator,
    split: Split,
    *,
    tokens: tuple[int, int] = (40, 512),
    measure: Callable[[str], int] = estimate_tokens,
    asked: int = 4,
) -> list[Sample]:
    """One text with facts of one or two relations, up to `asked` questions behind it."""
    dice = Dice(rng)
    facts: list[tuple[Relation, str, str]] = []
    for relation in dice.some(RELATIONS, dice.integer(1, 2)):
        keys = dice.some(relation.keys, dice.integer(2, 5))
        facts += [(relation, key, relation.value(dice)) for key in keys]
    facts = dice.shuffled(facts)
    sentences = [dice.pick(kind.statements).format(k=key, v=value) for kind, key, value in facts]
    text = _fill(sentences, _length(dice, tokens), dice, measure)
    if dice.chance(0.3):
        text = f"{dice.pick(BEFORE)} {text}"
    turns = ((text, dice.pick(NOTED)),) if dice.chance(0.3) else ()
    joint = "" if turns else dice.pick((" ", " ", "\n"))
    group = []
    for kind, key, value in dice.some(facts, asked):
        question = _ask(kind, key, dice, split)
        user = question if turns else text + joint + question
        labels = {"kind": "fact", "key": key, "facts": len(facts)}
        group.append(Sample("lookup", (user,), value, turns=turns, facts=labels))
    return group


def _ask(relation: Relation, key: str, dice: Dice, split: Split) -> str:
    if dice.chance(0.3):
        return spell(dice.pick(relation.direct).format(k=key), dice, split)
    return ASK.around(dice, split, dice.pick(relation.asked).format(k=key))


def _pairs(dice: Dice, split: Split) -> Sample:
    """A list of keys and values, of which one, some or all are asked for in any order: much practice in few tokens."""
    count = dice.integer(2, 10)
    keys = dice.some(PLAIN_WORDS if dice.chance(0.7) else NAMES, count)
    values = [str(dice.integer(10, 99)) if dice.chance(0.7) else dice.pick(COLOURS) for _ in keys]
    sign, end = dice.pick(((": ", "\n"), (" = ", ", "), (" is ", ". "), (" - ", "\n"), (": ", ", ")))
    listed = end.join(f"{key}{sign}{value}" for key, value in zip(keys, values, strict=True))
    asked = dice.some(range(count), 1 if dice.chance(0.4) else dice.integer(2, count))
    question = ASK_PAIRS.around(dice, split, ", ".join(keys[i] for i in asked))
    answer = ", ".join(values[i] for i in asked)
    return Sample("lookup", (f"{listed}\n{question}",), answer, facts={"kind": "pairs", "facts": count})


def make_needle(
    rng: np.random.Generator,
    split: Split,
    *,
    tokens: tuple[int, int] = (256, 4096),
    measure: Callable[[str], int] = estimate_tokens,
) -> Sample:
    """One number in a fixed wording somewhere in filler of up to 4,096 tokens."""
    dice = Dice(rng)
    length = _length(dice, tokens)
    number = str(dice.integer(1000, 9999))
    text = _fill([NEEDLE.format(x=number)], length - 24, dice, measure)
    depth = text.index(number) / len(text)
    labels = {"kind": "needle", "tokens": length, "depth": depth, "split": split}
    return Sample("needle", (f"{text}\n{NEEDLE_QUESTION}",), number, facts=labels)
