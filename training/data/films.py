"""Films: short clips of drawn objects that move, appear, disappear, grow or change colour.

A clip is at most six seconds of 8 to 16 frames; stories.py says what happens in it. Answer forms: "left", "right",
"up", "down"; an object ("a red circle"); objects in order ("a red circle, then a blue star"); a count; a colour;
"larger", "smaller"; a place ("top left"); a time ("00:02"); an event ("a red circle appears", "the circle turns blue").
"""

import numpy as np

from training.data.canvas import background, draw_paper, grain
from training.data.dice import Dice
from training.data.sample import Film, Sample, Split
from training.data.scenes import distance
from training.data.shapes import TONES, draw_tone, fill_polygon, outline, stroke_polygon
from training.data.stories import KINDS, Story

SIDES = (96, 144)


def shoot(story: Story, dice: Dice, sides: tuple[int, int] = SIDES) -> np.ndarray:
    """Draw a story: frames uint8 [T, H, W, 3]."""
    height = dice.integer(*sides)
    width = height if dice.chance(0.6) else dice.integer(*sides)
    unit = min(height, width)
    tones = [draw_tone(actor.colour, dice) for actor in story.actors]
    later = [TONES[actor.turns[1]][0] if actor.turns else tone for actor, tone in zip(story.actors, tones, strict=True)]
    paper = _paper([*tones, *later], dice)
    ground = background(height, width, paper, dice)
    kind = dice.uniform()
    style = "filled" if kind < 0.75 else "edged" if kind < 0.9 else "outlined"
    smooth, pause = dice.chance(0.8), dice.uniform(0, 0.15) if dice.chance(0.3) else 0.0
    outlines = [outline(actor.shape, dice) for actor in story.actors]
    noisy = dice.uniform(0.05, 0.25) if dice.chance(0.12) else 0.0
    frames = []
    for t in range(story.frames):
        frame = ground.copy()
        along = min(1.0, max(0.0, (t / (story.frames - 1) - pause) / (1 - 2 * pause)))
        for actor, points, tone, other in zip(story.actors, outlines, tones, later, strict=True):
            if not actor.enters <= t < actor.leaves:
                continue
            colour = other if actor.turns and t >= actor.turns[0] else tone
            radius = actor.radius * unit * (1 + (actor.grows - 1) * along)
            x = (actor.start[0] + (actor.end[0] - actor.start[0]) * along) * width
            y = (actor.start[1] + (actor.end[1] - actor.start[1]) * along) * height
            thick = max(3, round(0.2 * radius))
            if style == "outlined":
                stroke_polygon(frame, points * (radius - thick / 2) + (x, y), colour, thick, smooth)
                continue
            fill_polygon(frame, points * radius + (x, y), colour, smooth)
            if style == "edged":
                stroke_polygon(frame, points * radius + (x, y), (0, 0, 0), max(1, thick // 3), smooth)
        frames.append(grain(frame, noisy, dice) if noisy else frame)
    return np.stack(frames)


def _paper(tones: list[tuple[int, int, int]], dice: Dice) -> tuple[int, int, int]:
    """A background that differs from every tone."""
    for paper in (*(draw_paper(dice) for _ in range(8)), (255, 255, 255), (0, 0, 0), (205, 205, 205), (225, 240, 215)):
        if all(distance(paper, tone) > 110 for tone in tones):
            return paper
    return (60, 75, 95)


def draw_story(dice: Dice, split: Split, kind: str | None = None) -> tuple[str, Story]:
    """A kind of story and a story of it."""
    names, shares = tuple(KINDS), np.cumsum([share for _, share in KINDS.values()])
    kind = kind or names[int(np.searchsorted(shares, dice.uniform() * shares[-1]))]
    return kind, KINDS[kind][0](dice, split)


def make(rng: np.random.Generator, split: Split, *, kind: str | None = None, sides: tuple[int, int] = SIDES) -> Sample:
    """A question about a clip; `kind` is one of KINDS, drawn where not given."""
    dice = Dice(rng)
    kind, story = draw_story(dice, split, kind)
    wording, slots, answer = dice.pick(story.asked)
    question = wording.say(dice, split, **slots)
    film = Film(shoot(story, dice, sides), float(story.fps))
    objects = [{"colour": actor.colour, "shape": actor.shape} for actor in story.actors]
    user = (question, film) if dice.chance(0.15) else (film, question)
    return Sample("video", user, answer, facts={"kind": kind, "objects": objects, "count": len(objects)})


def make_group(rng: np.random.Generator, split: Split, asked: int = 3) -> list[Sample]:
    """A clip and up to `asked` questions behind it."""
    dice = Dice(rng)
    kind, story = draw_story(dice, split)
    film = Film(shoot(story, dice), float(story.fps))
    chosen = dice.some(story.asked, asked)
    return [
        Sample(f"video {kind}", (film, wording.say(dice, split, **slots)), answer) for wording, slots, answer in chosen
    ]
