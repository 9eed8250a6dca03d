"""Pictures: questions about one drawn scene, each with one short right answer.

Answer forms: a colour ("red"), a shape ("circle"), an object ("a red circle"; "nothing"), a place ("top left"), a
count in digits ("3"), "yes" or "no", "small" or "large", a list in reading order ("a red circle, a blue star and a
grey cross").
"""

from collections.abc import Callable

import numpy as np

from training.data import picture_wordings as wordings
from training.data.dice import Dice
from training.data.sample import Picture, Sample, Split
from training.data.scenes import PLACES, SIDES, Scene, Thing, draw_scene, paint
from training.data.shapes import COLOURS, PLURALS, SHAPES
from training.data.wording import enumerate_words, with_article

Asked = tuple[str, str] | None  # question and answer; None where the scene does not allow this kind of question
NOUNS = ("object", "shape", "thing")


def _unique(scene: Scene, of: Callable[[Thing], str]) -> list[Thing]:
    """The things whose property no other thing shares."""
    values = [of(thing) for thing in scene.things]
    return [thing for thing, value in zip(scene.things, values, strict=True) if values.count(value) == 1]


def ask_colour(scene: Scene, dice: Dice, split: Split) -> Asked:
    """The colour of a shape, of what is at a place, or of the only object."""
    if len(scene.things) == 1 and dice.chance(0.6):
        return wordings.ONLY_COLOUR.say(dice, split), scene.things[0].colour
    if dice.chance(0.2):
        thing = dice.pick(scene.things)
        return wordings.COLOUR_OF_PLACE.say(dice, split, at=wordings.place_phrase(thing.place, dice)), thing.colour
    unique = _unique(scene, lambda thing: thing.shape)
    if not unique:
        return None
    thing = dice.pick(unique)
    return wordings.COLOUR_OF.say(dice, split, shape=thing.shape), thing.colour


def ask_shape(scene: Scene, dice: Dice, split: Split) -> Asked:
    """The shape of the object of one colour, or of the only object."""
    if len(scene.things) == 1 and dice.chance(0.6):
        return wordings.ONLY_SHAPE.say(dice, split), scene.things[0].shape
    unique = _unique(scene, lambda thing: thing.colour)
    if not unique:
        return None
    thing = dice.pick(unique)
    return wordings.SHAPE_OF.say(dice, split, colour=thing.colour), thing.shape


def ask_at_place(scene: Scene, dice: Dice, split: Split) -> Asked:
    """What is at a place; nothing in one case of ten."""
    if dice.chance(0.1):
        empty = [place for i, place in enumerate(PLACES) if all(thing.cell != i for thing in scene.things)]
        if empty:
            return wordings.AT_PLACE.say(dice, split, at=wordings.place_phrase(dice.pick(empty), dice)), "nothing"
    thing = dice.pick(scene.things)
    at = wordings.place_phrase(thing.place, dice)
    return wordings.AT_PLACE.say(dice, split, at=at), with_article(thing.name)


def _called(scene: Scene, thing: Thing, dice: Dice) -> str | None:
    """A name that means this thing alone: its shape, its colour, or both."""
    names = [thing.name] if sum(other.name == thing.name for other in scene.things) == 1 else []
    if sum(other.shape == thing.shape for other in scene.things) == 1:
        names.append(thing.shape)
    if sum(other.colour == thing.colour for other in scene.things) == 1:
        names.append(f"{thing.colour} {dice.pick(NOUNS)}")
    return dice.pick(names) if names else None


def ask_where(scene: Scene, dice: Dice, split: Split) -> Asked:
    """The place of an object."""
    thing = dice.pick(scene.things)
    name = _called(scene, thing, dice)
    return (wordings.WHERE.say(dice, split, thing=name), thing.place) if name else None


def ask_count(scene: Scene, dice: Dice, split: Split) -> Asked:
    """How many objects there are."""
    return wordings.COUNT.say(dice, split), str(len(scene.things))


def ask_count_of(scene: Scene, dice: Dice, split: Split) -> Asked:
    """How many of a shape, of a colour or of both there are; zero now and then."""
    there = dice.pick(scene.things)
    shape = there.shape if dice.chance(0.8) else dice.pick(SHAPES)
    colour = there.colour if dice.chance(0.8) else dice.pick(COLOURS)
    by = dice.uniform()
    if by < 0.5:
        kind, number = PLURALS[shape], sum(thing.shape == shape for thing in scene.things)
    elif by < 0.85:
        kind, number = f"{colour} {dice.pick(NOUNS)}s", sum(thing.colour == colour for thing in scene.things)
    else:
        kind = f"{colour} {PLURALS[shape]}"
        number = sum(thing.colour == colour and thing.shape == shape for thing in scene.things)
    return wordings.COUNT_OF.say(dice, split, kind=kind), str(number)


def ask_what(scene: Scene, dice: Dice, split: Split) -> Asked:
    """All objects in reading order."""
    names = [with_article(thing.name) for thing in scene.things]
    return wordings.WHAT.say(dice, split), enumerate_words(names)


def ask_is_there(scene: Scene, dice: Dice, split: Split) -> Asked:
    """Whether an object is there; a wrong one often shares colour or shape with one that is."""
    thing = dice.pick(scene.things)
    colour, shape = thing.colour, thing.shape
    if dice.chance(0.62):  # some of the changed ones are there all the same
        if dice.chance(0.5):
            colour = dice.pick(COLOURS)
        else:
            shape = dice.pick(SHAPES)
    if dice.chance(0.3):
        name, there = shape, any(other.shape == shape for other in scene.things)
    else:
        name = f"{colour} {shape}"
        there = any(other.name == name for other in scene.things)
    return wordings.IS_THERE.say(dice, split, thing=with_article(name)), "yes" if there else "no"


def ask_is_colour(scene: Scene, dice: Dice, split: Split) -> Asked:
    """Whether a shape has a colour; a wrong one is often another object's."""
    unique = _unique(scene, lambda thing: thing.shape)
    if not unique:
        return None
    thing = dice.pick(unique)
    colour = thing.colour
    if dice.chance(0.65):
        colour = dice.pick(scene.things).colour if dice.chance(0.5) else dice.pick(COLOURS)
    answer = "yes" if colour == thing.colour else "no"
    return wordings.IS_COLOUR.say(dice, split, shape=thing.shape, colour=colour), answer


def ask_size(scene: Scene, dice: Dice, split: Split) -> Asked:
    """Whether an object is small or large, asked only of those that clearly are; or which of two is larger."""
    if len(scene.things) == 2 and dice.chance(0.6):
        one, other = dice.shuffled(scene.things)
        if one.shape == other.shape or not min(one.radius, other.radius) / max(one.radius, other.radius) < 0.7:
            return None
        more = dice.pick(("larger", "bigger", "smaller"))
        first = (one.radius > other.radius) == (more != "smaller")
        question = wordings.LARGER.say(dice, split, more=more, one=one.shape, other=other.shape)
        return question, one.shape if first else other.shape
    thing = dice.pick(scene.things)
    name = _called(scene, thing, dice)
    if not thing.size or name is None:
        return None
    return wordings.SIZE.say(dice, split, thing=name), thing.size


def ask_relation(scene: Scene, dice: Dice, split: Split) -> Asked:
    """Whether one object is left of, right of, above or below another."""
    if len(scene.things) < 2:
        return None
    one, other = dice.some(scene.things, 2)
    names = _called(scene, one, dice), _called(scene, other, dice)
    side = dice.pick(("left of", "to the left of", "right of", "to the right of", "above", "below"))
    apart = other.cell % 3 - one.cell % 3 if "of" in side else other.cell // 3 - one.cell // 3
    if None in names or apart == 0:
        return None
    answer = "yes" if (apart > 0) == ("left" in side or side == "above") else "no"
    return wordings.RELATION.say(dice, split, one=names[0], other=names[1], side=side), answer


Ask = Callable[[Scene, Dice, Split], Asked]
QUESTIONS: dict[str, tuple[Ask, float]] = {
    "colour": (ask_colour, 0.15),
    "shape": (ask_shape, 0.15),
    "at_place": (ask_at_place, 0.13),
    "where": (ask_where, 0.13),
    "count": (ask_count, 0.08),
    "count_of": (ask_count_of, 0.07),
    "what": (ask_what, 0.12),
    "is_there": (ask_is_there, 0.06),
    "is_colour": (ask_is_colour, 0.03),
    "size": (ask_size, 0.05),
    "relation": (ask_relation, 0.03),
}
_KINDS = tuple(QUESTIONS)
_SHARES = tuple(np.cumsum([share for _, share in QUESTIONS.values()]))


def draw_kind(dice: Dice) -> str:
    """The name of a kind of question."""
    return _KINDS[int(np.searchsorted(_SHARES, dice.uniform() * _SHARES[-1]))]


def ask(kind: str, dice: Dice, split: Split, *, sides: tuple[int, int] = SIDES, large_share: float = 0.03):
    """A scene that allows this kind of question: (scene, question, answer)."""
    while True:
        count = dice.pick((1, 1, 2, 2, 3, 3, 4, 5))
        if kind == "size" and dice.chance(0.5):
            count = 2
        crowd_share = 0.12
        if kind in ("count", "count_of"):
            count, crowd_share = dice.pick((1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 7)), 0.5
        scene = draw_scene(dice, split, count, sides, large_share, crowd_share)
        asked = QUESTIONS[kind][0](scene, dice, split)
        if asked is not None:
            return scene, *asked


def make(
    rng: np.random.Generator,
    split: Split,
    *,
    kind: str | None = None,
    sides: tuple[int, int] = SIDES,
    large_share: float = 0.03,
) -> Sample:
    """A question about a drawn picture; `kind` one of QUESTIONS, drawn where not given.

    `sides` bounds the usual side in pixels; a share of `large_share` goes up to 1024.
    """
    dice = Dice(rng)
    kind = kind or draw_kind(dice)
    scene, question, answer = ask(kind, dice, split, sides=sides, large_share=large_share)
    picture = Picture(paint(scene, dice))
    user = (question, picture) if dice.chance(0.12) else (picture, question)
    return Sample("pictures", user, answer, facts={"kind": kind, **scene.labels()})
