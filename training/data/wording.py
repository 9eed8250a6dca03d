"""Wording: the many ways one question is put, in spelling and in words; some ways are kept out of training."""

import re
from dataclasses import dataclass

from training.data.dice import Dice
from training.data.sample import Split

OPENINGS = (
    "Please tell me: ", "Question: ", "Hello! ", "Hi, ", "Look carefully. ", "I have a question. ", "Please: ",
    "Can you tell me: ", "Quick question: ", "Answer briefly: ", "In one word: ", "Answer this question. ",
    "Please answer: ", "Here is a question: ", "Give a short answer: ", "Answer with one word. ", "Tell me: ", "Now: ",
    "Okay. ", "Hey, ", "I want to know: ", "My question: ", "Be precise. ", "Q: ",
)  # fmt: skip
ENDINGS = (
    " Please.", " Thanks!", " Answer briefly.", " Be brief.", " Give a short answer.", " Just the answer please.",
    " Answer with as few words as possible.", " Thank you.", " Answer in one word.", " One word only.",
    " Answer with one word or a short phrase.", " Only give the answer.", " Do not explain.",
    " Reply with the answer only.", " No explanation.", " Be exact.", " Answer:", " Use few words.", " Answer shortly.",
    " Nothing else.",
)  # fmt: skip
_PAYLOAD = "\0"
_ARTICLE = re.compile(r"\b([Aa])(?= [aeio])")

HELD_OUT_OPENINGS = ("Tell me, please: ", "One question: ", "Good morning. ", "In short: ")
HELD_OUT_ENDINGS = (" Keep it short.", " Short answer please.", " Many thanks.", " Just one word.")


@dataclass(frozen=True)
class Wording:
    """The wordings of one kind of question; `{slot}` is filled by the maker."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]

    def say(self, dice: Dice, split: Split, **slots: object) -> str:
        """One wording of the split, filled and spelt in some way; half the held-out questions are new wordings."""
        unseen = split == "held_out" and dice.chance(0.5)
        text = dice.pick(self.held_out if unseen else self.train)
        if slots:
            text = _ARTICLE.sub(r"\1n", text.format(**slots))
            text = text[0].upper() + text[1:]
        return spell(text, dice, split)

    def rule(self, dice: Dice, split: Split, payload: str = "") -> str:
        """One wording of the split for a system prompt: no courtesies; slot `{x}` is the payload."""
        unseen = split == "held_out" and dice.chance(0.5)
        text = dice.pick(self.held_out if unseen else self.train).replace("{x}", payload)
        return text if dice.chance(0.9) else text.rstrip(".")

    def around(self, dice: Dice, split: Split, payload: str) -> str:
        """One wording of the split around a payload, slot `{x}`, that is kept exactly as it is."""
        return self.say(dice, split, x=_PAYLOAD).replace(_PAYLOAD, payload)


def spell(text: str, dice: Dice, split: Split, *, courtesy: bool = True) -> str:
    """Vary the case, the closing mark and, unless told not to, the courtesies of a question."""
    kind = dice.uniform()
    if kind < 0.55:
        return text
    if kind < 0.70:
        opening = dice.pick(OPENINGS if split == "train" else OPENINGS + HELD_OUT_OPENINGS)
        return opening + text
    if kind < 0.80:
        if not courtesy or text.endswith(_PAYLOAD):
            return text  # nothing may follow what is to be copied
        return text + dice.pick(ENDINGS if split == "train" else ENDINGS + HELD_OUT_ENDINGS)
    if kind < 0.87:
        return text.rstrip("?.!")
    if kind < 0.95:
        return text.rstrip("?.!").lower() if dice.chance(0.6) else text.lower()
    return text.upper()


def with_article(noun: str) -> str:
    """`a red circle`, `an orange circle`."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def enumerate_words(items: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]
