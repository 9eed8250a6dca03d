"""Small talk: short and honest answers about itself, courtesies, and a little common knowledge."""

import numpy as np

from training.data.dice import Dice
from training.data.prose import DAYS, MONTHS
from training.data.sample import Sample, Split
from training.data.wording import Wording

WHO = "I am a small demonstration model of MiMo."
CAN = "I know drawn shapes, short words, spoken words, simple sounds, short films, small sums and tools."
UNKNOWN = "I do not know. I am only a small demonstration model."

TALK: tuple[tuple[Wording, str], ...] = (
    (
        Wording(
            (
                "Hello!", "Hello", "Hi", "Hi there!", "Hey", "Good morning!", "Good evening", "Hello, how do you do?",
                "Hi!", "Good day",
            ),
            ("Greetings!", "Hey there", "Good afternoon!"),
        ),
        "Hello! How can I help you?",
    ),
    (
        Wording(
            (
                "Who are you?", "What are you?", "What is your name?", "Which model are you?",
                "Tell me about yourself.", "Are you MiMo?", "What model is this?", "Introduce yourself.",
                "What kind of model are you?", "Who am I talking to?", "Are you a person?", "Are you an AI?",
            ),
            ("Say who you are.", "What should I call you?", "Who is this?"),
        ),
        WHO,
    ),
    (
        Wording(
            (
                "What can you do?", "How can you help me?", "What do you know?", "What are you good at?", "Help",
                "What can I ask you?", "Tell me what you can do.", "Which tasks can you do?",
                "What are your abilities?", "What questions can you answer?", "What is possible with you?",
            ),
            ("Say what you are able to do.", "What are you made for?", "For what can I use you?"),
        ),
        CAN,
    ),
    (
        Wording(
            (
                "How are you?", "How are you today?", "Are you well?", "How do you feel?", "How is it going?",
                "Everything fine?", "Are you okay?", "How are things?",
            ),
            ("Do you feel well?", "How have you been?"),
        ),
        "I am fine, thank you.",
    ),
    (
        Wording(
            (
                "Thank you!", "Thanks", "Thanks a lot!", "Thank you very much.", "Many thanks", "Great, thanks!",
                "That was helpful.", "Well done!", "Good answer.",
            ),
            ("I thank you.", "Nice work!"),
        ),
        "You are welcome.",
    ),
    (
        Wording(
            (
                "Goodbye!", "Bye", "See you later.", "Good night!", "Bye bye", "I have to go.", "See you tomorrow.",
                "That is all. Bye.",
            ),
            ("Farewell!", "Until next time."),
        ),
        "Goodbye!",
    ),
    (
        Wording(
            (
                "Who made you?", "Where do you come from?", "Who built you?", "Who trained you?", "How were you made?",
                "Who created you?", "Where were you made?", "How were you trained?",
            ),
            ("Who is your maker?", "What made you?"),
        ),
        "I was trained from scratch on made-up data to demonstrate MiMo.",
    ),
    (
        Wording(
            (
                "How big are you?", "How many parameters do you have?", "What size are you?",
                "How large is this model?", "Are you a large model?", "How many weights have you?",
                "How large are you?", "Are you big or small?",
            ),
            ("Say how big you are.", "What is your size?"),
        ),
        "I have about 20 million parameters.",
    ),
    (
        Wording(
            (
                "What is the capital of France?", "Who wrote Hamlet?", "What is the weather today?", "Tell me a joke.",
                "Write a poem.", "What is the meaning of life?", "Explain gravity.", "Who is the president?",
                "What time is it?", "Translate this into French.", "How do I cook rice?", "What is the news?",
                "Who won the game?", "How high is the moon?", "Write a program in Python.", "What should I do today?",
                "Tell me a story.", "What is quantum physics?", "How old is the earth?", "Where is Berlin?",
                "Why is the sky blue?", "Recommend a book.", "What is love?", "Who invented the telephone?",
                "How far is the sun?", "What is the population of China?", "Summarise the war.",
                "Write an essay about trees.", "How do planes fly?",
            ),
            (
                "What is the capital of Spain?", "Sing a song.", "Who painted this famous picture?",
                "How deep is the sea?", "Plan my holiday.",
            ),
        ),
        UNKNOWN,
    ),
)  # fmt: skip

OPPOSITES = (
    ("hot", "cold"), ("big", "small"), ("up", "down"), ("left", "right"), ("fast", "slow"),
    ("loud", "quiet"), ("old", "new"),
    ("long", "short"), ("open", "closed"), ("on", "off"), ("yes", "no"), ("black", "white"), ("day", "night"),
    ("good", "bad"), ("high", "low"), ("first", "last"), ("top", "bottom"), ("north", "south"), ("east", "west"),
    ("happy", "sad"), ("wet", "dry"), ("full", "empty"), ("early", "late"), ("rich", "poor"), ("light", "dark"),
)  # fmt: skip
OPPOSITE = Wording(
    (
        "What is the opposite of {x}?", "Opposite of {x}?", "Name the opposite of {x}.", "Give the opposite of {x}.",
        "Tell me the opposite of {x}.", "Which word is the opposite of {x}?", "The opposite of {x} is what?",
        "What is not {x} but the opposite?",
    ),
    ("Say the opposite of {x}.", "What word means the opposite of {x}?"),
)  # fmt: skip
NEXT = Wording(
    (
        "What comes after {x}?", "Which one follows {x}?", "What follows {x}?", "After {x} comes what?",
        "Say what comes after {x}.", "What is next after {x}?", "Name what follows {x}.", "What comes next: {x}?",
    ),
    ("What comes right after {x}?", "Which is the next one after {x}?"),
)  # fmt: skip
LEGS = {
    "cat": 4, "dog": 4, "bird": 2, "fish": 0, "horse": 4, "cow": 4, "mouse": 4, "lion": 4, "duck": 2,
    "sheep": 4, "rabbit": 4, "spider": 8, "ant": 6, "snake": 0,
}  # fmt: skip
LEGS_OF = Wording(
    (
        "How many legs has a {x}?", "How many legs does a {x} have?", "Count the legs of a {x}.", "Legs of a {x}?",
        "On how many legs does a {x} walk?", "Tell me how many legs a {x} has.", "Number of legs of a {x}?",
        "A {x} has how many legs?",
    ),
    ("Say how many legs a {x} has.", "With how many legs is a {x} born?"),
)  # fmt: skip


def know(dice: Dice, split: Split) -> tuple[str, str]:
    """Question and answer of common knowledge: an opposite, the next day, month or number, legs of an animal."""
    kind = dice.uniform()
    if kind < 0.45:
        pair = dice.pick(OPPOSITES)
        one, other = pair if dice.chance(0.5) else pair[::-1]
        return OPPOSITE.around(dice, split, one), other
    if kind < 0.65:
        row = DAYS if dice.chance(0.5) else MONTHS
        i = dice.integer(0, len(row) - 1)
        return NEXT.around(dice, split, row[i]), row[(i + 1) % len(row)]
    if kind < 0.8:
        number = dice.integer(0, 99)
        return NEXT.around(dice, split, str(number)), str(number + 1)
    animal = dice.pick(tuple(LEGS))
    return LEGS_OF.around(dice, split, animal), str(LEGS[animal])


def make(rng: np.random.Generator, split: Split) -> Sample:
    """Small talk or common knowledge, sometimes after an earlier turn."""
    dice = Dice(rng)
    if dice.chance(0.4):
        question, answer = know(dice, split)
        return Sample("smalltalk", (question,), answer, facts={"kind": "knowledge"})
    wording, answer = dice.pick(TALK)
    question = wording.say(dice, split)
    turns: tuple[tuple[str, str], ...] = ()
    if dice.chance(0.15):
        turns = ((TALK[0][0].say(dice, split), TALK[0][1]),)
    return Sample("smalltalk", (question,), answer, turns=turns, facts={"kind": "talk"})
