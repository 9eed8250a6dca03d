"""Mixed: a question about a drawn picture, asked by voice."""

from collections.abc import Callable

import numpy as np

from training.data.acoustics import augment, loud_part, resample
from training.data.dice import Dice
from training.data.pictures import draw_kind
from training.data.sample import Picture, Sample, Sound, Split
from training.data.scenes import PLACES, SIDES, Scene, draw_scene, paint
from training.data.shapes import PLURALS
from training.data.speech_clips import STORED_RATE
from training.data.voices import ACCENTS, HELD_OUT_VOICES, VARIANTS, Request, synthesise
from training.data.wording import enumerate_words, with_article

Asked = tuple[str, str] | None
_SPEAKABLE_PLACES = {place: f"at the {place}" for place in PLACES} | {
    "left": "on the left", "right": "on the right", "middle": "in the middle",
}  # fmt: skip


def _alone(scene: Scene, attribute: str) -> list:
    values = [getattr(thing, attribute) for thing in scene.things]
    return [thing for thing in scene.things if values.count(getattr(thing, attribute)) == 1]


def _colour(scene: Scene, dice: Dice) -> Asked:
    unique = _alone(scene, "shape")
    if not unique:
        return None
    thing = dice.pick(unique)
    return dice.pick((f"what colour is the {thing.shape}", f"which colour is the {thing.shape}")), thing.colour


def _shape(scene: Scene, dice: Dice) -> Asked:
    unique = _alone(scene, "colour")
    if not unique:
        return None
    thing = dice.pick(unique)
    forms = (
        f"what shape is {thing.colour}",
        f"which shape is {thing.colour}",
        f"what shape is the {thing.colour} object",
    )
    return dice.pick(forms), thing.shape


def _place(scene: Scene, dice: Dice) -> Asked:
    thing = dice.pick(scene.things)
    return f"what is {_SPEAKABLE_PLACES[thing.place]}", with_article(thing.name)


def _where(scene: Scene, dice: Dice) -> Asked:
    unique = _alone(scene, "shape")
    if not unique:
        return None
    thing = dice.pick(unique)
    return dice.pick((f"where is the {thing.shape}", f"where is the {thing.name}")), thing.place


def _count(scene: Scene, dice: Dice) -> Asked:
    if dice.chance(0.5):
        return dice.pick(("how many objects are there", "count the objects")), str(len(scene.things))
    shape = dice.pick(scene.things).shape
    return f"how many {PLURALS[shape]} are there", str(sum(thing.shape == shape for thing in scene.things))


def _what(scene: Scene, dice: Dice) -> Asked:
    names = [with_article(thing.name) for thing in scene.things]
    return dice.pick(("what is this", "what is in the picture")), enumerate_words(names)


def _is_there(scene: Scene, dice: Dice) -> Asked:
    thing, other = dice.pick(scene.things), dice.pick(scene.things)
    name = f"{thing.colour} {dice.pick((thing.shape, other.shape, dice.pick(tuple(PLURALS))))}"
    there = any(seen.name == name for seen in scene.things)
    return f"is there {with_article(name)}", "yes" if there else "no"


KINDS: dict[str, Callable[[Scene, Dice], Asked]] = {
    "colour": _colour, "shape": _shape, "at_place": _place, "where": _where, "count": _count, "count_of": _count,
    "what": _what, "is_there": _is_there,
}  # fmt: skip


def draw_voice(dice: Dice, split: Split) -> str:
    """A voice of espeak-ng, quick enough to speak while training; half of the held-out questions in unseen voices."""
    if split == "held_out" and dice.chance(0.5):
        return dice.pick([voice for voice in HELD_OUT_VOICES if voice.startswith("espeak-ng")])
    accent = dice.pick(ACCENTS)
    return f"espeak-ng {accent}" if dice.chance(0.3) else f"espeak-ng {accent}+{dice.pick(VARIANTS)}"


def speak(text: str, dice: Dice, split: Split) -> tuple[Sound, str]:
    """The text spoken by some voice, as some recording, and the voice."""
    voice = draw_voice(dice, split)
    usual = dice.chance(0.3)
    request = Request(text, voice, 1.0 if usual else dice.uniform(0.8, 1.25), 0.0 if usual else dice.uniform(-1, 1))
    (spoken,) = synthesise([request])
    samples = resample(spoken.samples, spoken.sample_rate, STORED_RATE)
    samples, rate, _, _ = augment(samples[loud_part(samples, STORED_RATE)], STORED_RATE, dice.rng)
    return Sound(samples, rate), voice


def make(rng: np.random.Generator, split: Split, *, sides: tuple[int, int] = SIDES) -> Sample:
    """A picture and a spoken question about it; needs espeak-ng."""
    dice = Dice(rng)
    asked = None
    while asked is None:
        kind = draw_kind(dice)
        scene = draw_scene(dice, split, dice.pick((1, 1, 2, 2, 3, 4)), sides, 0.0)
        asked = KINDS[kind](scene, dice) if kind in KINDS else None
    question, answer = asked
    sound, voice = speak(question, dice, split)
    picture = Picture(paint(scene, dice))
    user = (sound, picture) if dice.chance(0.2) else (picture, sound)
    facts = {"kind": kind, "question": question, "voice": voice, **scene.labels()}
    return Sample("mixed", user, answer, facts=facts)
