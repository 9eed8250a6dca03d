"""System prompts: a simple rule or fact in the system turn that changes the answer to a simple question."""

from collections.abc import Callable

import numpy as np

from training.data import smalltalk, strings, sums
from training.data.dice import Dice
from training.data.prose import JOBS, NAMES, PLAIN_WORDS, TOWNS
from training.data.sample import Sample, Split
from training.data.vocabulary import ANIMALS, COLOURS, number_words
from training.data.wording import Wording, spell

CAPITALS = Wording(
    (
        "Answer in capital letters.", "Always answer in capitals.", "Write everything in upper case.",
        "Use only capital letters.", "Reply in capital letters.", "All your answers must be in upper case.",
        "You speak only in capital letters.", "Please answer in uppercase only.", "Respond in all caps.",
        "Answer with capital letters only.",
    ),
    ("Write each answer in capitals.", "Your replies are in capital letters."),
)  # fmt: skip
SMALL = Wording(
    (
        "Answer in small letters.", "Use only small letters.", "Write everything in lower case.",
        "Reply in lower case.", "Never use capital letters.", "All your answers must be in lower case.",
        "Respond in lowercase.", "You write in small letters only.",
    ),
    ("Write each answer in small letters.", "Your replies are in lower case."),
)  # fmt: skip
END = Wording(
    (
        "Always end your answer with the word {x}.", "End every answer with {x}.",
        "Finish each answer with the word {x}.", "The last word of your answer must be {x}.",
        "Close every reply with {x}.", "Put the word {x} at the end of each answer.",
        "Say {x} at the end of every answer.", "Every answer ends with {x}.",
    ),
    ("Let each answer end with the word {x}.", "Your last word is always {x}."),
)  # fmt: skip
BEGIN = Wording(
    (
        "Always start your answer with the word {x}.", "Start every answer with {x}.",
        "Begin each answer with the word {x}.", "The first word of your answer must be {x}.",
        "Open every reply with {x}.", "Put the word {x} before each answer.", "Say {x} at the start of every answer.",
        "Every answer begins with {x}.",
    ),
    ("Let each answer begin with the word {x}.", "Your first word is always {x}."),
)  # fmt: skip
ALWAYS = Wording(
    (
        "Answer every question with {x}.", "Always say {x}, whatever you are asked.", "Your only answer is {x}.",
        "Only ever reply {x}.", "Whatever the user says, answer {x}.", "Reply to everything with {x}.",
        "Say nothing but {x}.", "You can only say {x}.",
    ),
    ("No matter the question, say {x}.", "To all questions the answer is {x}."),
)  # fmt: skip
YES_NO = Wording(
    (
        "Answer only yes or no.", "Reply with yes or no.", "Say only yes or no.", "Your answers are yes or no.",
        "Use one word: yes or no.", "Answer with yes or no and nothing else.", "Only yes and no are allowed.",
        "Respond with yes or no.",
    ),
    ("Nothing but yes or no, please.", "Each answer is either yes or no."),
)  # fmt: skip
NUMBER_WORDS = Wording(
    (
        "Write numbers as words.", "Answer with number words.", "Spell out all numbers.", "Use words for numbers.",
        "Do not use digits.", "Numbers must be written as words.", "Write out every number in words.",
        "Reply with words instead of digits.",
    ),
    ("Give numbers in words.", "No digits: write numbers in letters."),
)  # fmt: skip
NAME = Wording(
    (
        "Your name is {x}.", "You are {x}, a friendly helper.", "You are called {x}.", "Call yourself {x}.",
        "You are an assistant named {x}.", "From now on your name is {x}.", "Act as {x}.",
        "You are a robot with the name {x}.",
    ),
    ("{x} is your name.", "The assistant is called {x}."),
)  # fmt: skip
NAME_QUESTION = Wording(
    (
        "What is your name?", "What are you called?", "Tell me your name.", "Your name?", "How are you called?",
        "Say your name.", "Which name do you have?", "What name do you go by?", "What's your name?",
    ),
    ("Under what name are you known?", "Give me your name."),
)  # fmt: skip
FACTS: tuple[tuple[Wording, tuple[str, ...], tuple[str, ...]], ...] = (
    (
        Wording(
            ("The user's name is {x}.", "The user is called {x}.", "You talk to {x}.", "The name of the user is {x}."),
            ("Your user is {x}.",),
        ),
        NAMES,
        ("What is my name?", "Who am I?", "Do you know my name?", "What am I called?", "Tell me my name."),
    ),
    (
        Wording(
            (
                "The user lives in {x}.", "The user's town is {x}.", "The user's home is {x}.",
                "The user comes from {x}.",
            ),
            ("Home of the user: {x}.",),
        ),
        TOWNS,
        ("Where do I live?", "What is my town?", "In which town do I live?", "Which town is my home?"),
    ),
    (
        Wording(
            ("The secret word is {x}.", "The password is {x}.", "Today's word is {x}.", "The word of the day is {x}."),
            ("The word to keep is {x}.",),
        ),
        PLAIN_WORDS,
        ("What is the word?", "What is the secret word?", "Tell me the word.", "Which word is it?"),
    ),
    (
        Wording(
            ("The user's favourite colour is {x}.", "The user likes {x} best.", "The user's colour is {x}."),
            ("The user loves {x}.",),
        ),
        COLOURS,
        ("What is my favourite colour?", "Which color do I like?", "What colour do I like best?", "Tell me my colour."),
    ),
    (
        Wording(
            ("The user has a {x}.", "The user's pet is a {x}.", "The user keeps a {x}."),
            ("The pet of the user is a {x}.",),
        ),
        ANIMALS,
        ("What pet do I have?", "Which animal do I have?", "What is my pet?", "Tell me which pet I have."),
    ),
    (
        Wording(
            ("The user works as a {x}.", "The user is a {x}.", "The user's job is {x}."),
            ("The job of the user is {x}.",),
        ),
        JOBS,
        ("What is my job?", "What do I work as?", "Which job do I have?", "Tell me my job."),
    ),
)  # fmt: skip
WORDS = ("sir", "over", "please", "okay", "captain", "done", "indeed", "friend", "amen", "roger", *PLAIN_WORDS[:40])
HELD_OUT_WORDS = PLAIN_WORDS[60:90]


def _easy(dice: Dice, split: Split) -> tuple[str, str]:
    """A simple question and its answer, of any kind that has a short one."""
    kind = dice.uniform()
    if kind < 0.4:
        return smalltalk.know(dice, split)
    if kind < 0.65:
        word = dice.pick(strings.SHORT_WORDS)
        return strings.COPY.around(dice, split, word), word
    operation, a, b = sums.draw_pair(dice, split)
    return sums.SUM.around(dice, split, f"{a} {operation} {b}"), str(sums.result(operation, a, b))


def _spoken(dice: Dice, split: Split) -> tuple[str, str]:
    """A simple question whose answer has letters."""
    while True:
        question, answer = _easy(dice, split)
        if not answer.isdigit():
            return question, answer


def _compare(dice: Dice, split: Split) -> tuple[str, str]:
    """A question with the answer yes or no."""
    if dice.chance(0.5):
        a, b = dice.integer(0, 99), dice.integer(0, 99)
        more = dice.pick(("larger", "smaller", "more", "less"))
        form = dice.pick(
            ("Is {a} {m} than {b}?", "Is the number {a} {m} than {b}?", "Would you say {a} is {m} than {b}?")
        )
        return spell(form.format(a=a, b=b, m=more), dice, split), "yes" if (
            a > b if more in ("larger", "more") else a < b
        ) else "no"
    pair = dice.pick(smalltalk.OPPOSITES)
    other = pair[1] if dice.chance(0.5) else dice.pick(smalltalk.OPPOSITES)[1]
    form = dice.pick(("Is {a} the opposite of {b}?", "Is the opposite of {b} {a}?", "Are {a} and {b} opposites?"))
    return spell(form.format(a=other, b=pair[0]), dice, split), "yes" if other == pair[1] else "no"


def _word(dice: Dice, split: Split) -> str:
    return dice.pick(WORDS if split == "train" else HELD_OUT_WORDS)


Ruled = tuple[str, str, str]  # system prompt, question, answer


def _capitals(dice: Dice, split: Split) -> Ruled:
    question, answer = _spoken(dice, split)
    return CAPITALS.rule(dice, split), question, answer.upper()


def _small(dice: Dice, split: Split) -> Ruled:
    question, answer = _spoken(dice, split)
    return SMALL.rule(dice, split), question, answer.lower()


def _end(dice: Dice, split: Split) -> Ruled:
    (question, answer), word = _easy(dice, split), _word(dice, split)
    return END.rule(dice, split, word), question, f"{answer} {word}"


def _begin(dice: Dice, split: Split) -> Ruled:
    (question, answer), word = _easy(dice, split), _word(dice, split)
    return BEGIN.rule(dice, split, word), question, f"{word} {answer}"


def _always(dice: Dice, split: Split) -> Ruled:
    question, _ = _easy(dice, split)
    word = _word(dice, split)
    return ALWAYS.rule(dice, split, word), question, word


def _yes_no(dice: Dice, split: Split) -> Ruled:
    return (YES_NO.rule(dice, split), *_compare(dice, split))


def _number_words(dice: Dice, split: Split) -> Ruled:
    operation, a, b = sums.draw_pair(dice, split)
    value = sums.result(operation, a, b)
    return (
        NUMBER_WORDS.rule(dice, split),
        sums.SUM.around(dice, split, f"{a} {operation} {b}"),
        " ".join(number_words(value)),
    )


def _name(dice: Dice, split: Split) -> Ruled:
    name = dice.pick(NAMES)
    return NAME.rule(dice, split, name), NAME_QUESTION.say(dice, split), name


def _fact(dice: Dice, split: Split) -> Ruled:
    wording, values, questions = dice.pick(FACTS)
    value = dice.pick(values)
    return wording.rule(dice, split, value), spell(dice.pick(questions), dice, split), value


def _plain(dice: Dice, split: Split) -> Ruled:
    """A system prompt that changes nothing."""
    system = dice.pick(
        ("You are a helpful assistant.", "Answer briefly.", "Be brief and polite.", "You are a friendly assistant.", "")
    )
    return (system, *_easy(dice, split))


NEUTRAL = (
    "You are a helpful assistant.", "Answer briefly.", "Be brief and polite.", "You are a friendly assistant.", "",
    "You are MiMo.", "Help the user.", "Give short answers.", "You answer questions about pictures and recordings.",
)  # fmt: skip
RULES: dict[str, Callable[[Dice, Split], Ruled]] = {
    "capitals": _capitals, "end": _end, "begin": _begin, "always": _always, "yes_no": _yes_no, "name": _name,
    "fact": _fact, "number_words": _number_words, "small": _small, "plain": _plain,
}  # fmt: skip


def make(rng: np.random.Generator, split: Split, *, rule: str | None = None) -> Sample:
    """A question under a system prompt; `rule` is one of RULES, drawn where not given."""
    dice = Dice(rng)
    rule = rule or dice.pick(tuple(RULES))
    system, question, answer = RULES[rule](dice, split)
    return Sample("system", (question,), answer, system=system, facts={"kind": rule})
