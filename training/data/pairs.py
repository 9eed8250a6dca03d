"""Pairs: questions about two or three pictures: which one, the same or not, what differs.

Answer forms: "first", "second", "third"; "yes", "no"; "colour", "shape", "place", "count".
"""

from dataclasses import replace

import numpy as np

from training.data import picture_wordings as wordings
from training.data.dice import Dice
from training.data.sample import Picture, Sample, Split
from training.data.scenes import Scene, Thing, draw_look, draw_scene, is_held_out, paint
from training.data.shapes import COLOURS, SHAPES
from training.data.wording import with_article

ORDINALS = ("first", "second", "third")
SIDES = (96, 128)
CHANGES = ("colour", "shape", "place", "count")


def _other(items: tuple[str, ...], than: str, dice: Dice) -> str:
    return dice.pick([item for item in items if item != than])


def change(scene: Scene, what: str, dice: Dice, split: Split) -> Scene:
    """The scene with one object changed in colour, shape or place, or one object more or less."""
    index = dice.integer(0, len(scene.things) - 1)
    thing = scene.things[index]
    rest = scene.things[:index] + scene.things[index + 1 :]
    if what == "count" and len(scene.things) > 1 and dice.chance(0.5):
        return replace(scene, things=rest)
    for _ in range(60):
        new = _changed(thing, scene, what, dice)
        if is_held_out(new.colour, new.shape, new.cell) == (split == "held_out"):
            break
    things = (*scene.things, new) if what == "count" else (*rest, new)
    return replace(scene, things=tuple(sorted(things, key=lambda thing: thing.cell)))


def _changed(thing: Thing, scene: Scene, what: str, dice: Dice) -> Thing:
    if what == "colour":
        return replace(thing, colour=_other(COLOURS, thing.colour, dice))
    if what == "shape":
        return replace(thing, shape=_other(SHAPES, thing.shape, dice))
    free = [cell for cell in range(9) if all(other.cell != cell for other in scene.things)]
    cell = dice.pick(free)
    radius = min(thing.radius, 0.15 * min(scene.height, scene.width))
    x, y = (cell % 3 + 0.5) * scene.width / 3, (cell // 3 + 0.5) * scene.height / 3
    kind = (dice.pick(COLOURS), dice.pick(SHAPES)) if what == "count" else (thing.colour, thing.shape)
    return Thing(*kind, cell, "", x, y, radius)


def _which(dice: Dice, split: Split) -> tuple[list[Scene], str, str]:
    """Which of two pictures has an object."""
    while True:
        scenes = [draw_scene(dice, split, dice.integer(1, 3), SIDES, 0.0) for _ in range(2)]
        index = dice.integer(0, 1)
        thing = dice.pick(scenes[index].things)
        if all(other.name != thing.name for other in scenes[1 - index].things):
            question = wordings.WHICH_PICTURE.say(dice, split, thing=with_article(thing.name))
            return scenes, question, ORDINALS[index]


def _more(dice: Dice, split: Split) -> tuple[list[Scene], str, str]:
    counts = dice.some(range(1, 6), 2)
    scenes = [draw_scene(dice, split, count, SIDES, 0.0) for count in counts]
    return scenes, wordings.MORE_OBJECTS.say(dice, split), ORDINALS[int(counts[1] > counts[0])]


def _same(dice: Dice, split: Split) -> tuple[list[Scene], str, str]:
    scene = draw_scene(dice, split, dice.integer(1, 3), SIDES, 0.0)
    same = dice.chance(0.5)
    other = scene if same else change(scene, dice.pick(CHANGES), dice, split)
    return dice.shuffled([scene, other]), wordings.SAME.say(dice, split), "yes" if same else "no"


def _difference(dice: Dice, split: Split) -> tuple[list[Scene], str, str]:
    scene = draw_scene(dice, split, dice.integer(1, 3), SIDES, 0.0)
    what = dice.pick(CHANGES)
    return [scene, change(scene, what, dice, split)], wordings.DIFFERENCE.say(dice, split), what


def _odd_one(dice: Dice, split: Split) -> tuple[list[Scene], str, str]:
    scene = draw_scene(dice, split, dice.integer(1, 2), SIDES, 0.0)
    index = dice.integer(0, 2)
    scenes = [scene] * 3
    scenes[index] = change(scene, dice.pick(("colour", "shape", "count")), dice, split)
    return scenes, wordings.ODD_ONE.say(dice, split), ORDINALS[index]


KINDS = {"which": _which, "more": _more, "same": _same, "difference": _difference, "odd_one": _odd_one}


def make(rng: np.random.Generator, split: Split, *, kind: str | None = None) -> Sample:
    """A question about two or three pictures, drawn in one style or each in its own."""
    dice = Dice(rng)
    kind = kind or dice.pick(("which", "which", "more", "same", "difference", "odd_one"))
    scenes, question, answer = KINDS[kind](dice, split)
    alike = kind not in ("which", "more") or dice.chance(0.5)
    look = draw_look(dice, scenes) if alike else None
    pictures = [Picture(paint(scene, dice, look)) for scene in scenes]
    facts = {"kind": kind, "scenes": [scene.labels() for scene in scenes]}
    return Sample("pairs", (*pictures, question), answer, facts=facts)
