"""Scenes: drawn objects at places of a picture, without overlap, each with a colour that has a name.

A triple of colour, shape and place belongs to one split: one in six is held out, so that an object asked about in the
held-out split was never seen there in that colour and shape.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.data.canvas import Colour, background, draw_paper, draw_size, wear
from training.data.dice import Dice
from training.data.sample import Split
from training.data.shapes import COLOURS, SHAPES, draw_tone, fill_polygon, outline, pillow_polygon, stroke_polygon

PLACES = ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right")
HELD_OUT_SHARE = 6
SIDES = (96, 224)


@dataclass(frozen=True)
class Thing:
    """A drawn object; `x`, `y`, `radius` in pixels; `size` small, large or, between them, empty."""

    colour: str
    shape: str
    cell: int
    size: str
    x: float
    y: float
    radius: float

    @property
    def name(self) -> str:
        """`red circle`."""
        return f"{self.colour} {self.shape}"

    @property
    def place(self) -> str:
        """The words for its place: `top left`."""
        return PLACES[self.cell]


@dataclass(frozen=True)
class Scene:
    """A picture's objects in reading order (rows from the top, each from the left) and its size in pixels."""

    things: tuple[Thing, ...]
    height: int
    width: int

    def labels(self) -> dict:
        """Direct labels for supervised heads; box corners are fractions of the width and height."""
        objects = [
            {
                "colour": thing.colour,
                "shape": thing.shape,
                "cell": thing.cell,
                "size": thing.size,
                "box": (
                    (thing.x - thing.radius) / self.width,
                    (thing.y - thing.radius) / self.height,
                    (thing.x + thing.radius) / self.width,
                    (thing.y + thing.radius) / self.height,
                ),
            }
            for thing in self.things
        ]
        return {"objects": objects, "count": len(objects)}


def is_held_out(colour: str, shape: str, cell: int) -> bool:
    """Whether this triple is kept out of training."""
    return zlib.crc32(f"{colour} {shape} {cell}".encode()) % HELD_OUT_SHARE == 0


def _draw_kind(dice: Dice, split: Split, cell: int) -> tuple[str, str]:
    """Colour and shape allowed at a cell."""
    while True:
        colour, shape = dice.pick(COLOURS), dice.pick(SHAPES)
        if is_held_out(colour, shape, cell) == (split == "held_out"):
            return colour, shape


def _kinds(dice: Dice, split: Split, cells: list[int]) -> list[tuple[str, str]]:
    """Colour and shape for every cell; kinds repeat now and then, so that counting has answers above one."""
    kinds: list[tuple[str, str]] = []
    for cell in cells:
        colour, shape = _draw_kind(dice, split, cell)
        if kinds and dice.chance(0.3):
            like = dice.pick(kinds)
            both = (like[0], shape) if dice.chance(0.5) else (colour, like[1])
            if is_held_out(*both, cell) == (split == "held_out"):
                colour, shape = both
        kinds.append((colour, shape))
    return kinds


def _crowd(dice: Dice, split: Split, count: int) -> tuple[list[int], list[tuple[str, str]]]:
    """Cells and kinds of several objects of one shape, of one or two colours.

    Of these some, not all, are held-out triples in the held-out split; none is in training.
    """
    while True:
        shape, colours = dice.pick(SHAPES), dice.some(COLOURS, dice.pick((1, 1, 2)))
        cells = sorted(dice.some(range(9), count))
        kinds = [(dice.pick(colours), shape) for _ in cells]
        held_out = [is_held_out(*kind, cell) for kind, cell in zip(kinds, cells, strict=True)]
        if any(held_out) == (split == "held_out"):
            return cells, kinds


def draw_scene(
    dice: Dice,
    split: Split,
    count: int,
    sides: tuple[int, int] = SIDES,
    large_share: float = 0.03,
    crowd_share: float = 0.12,
) -> Scene:
    """A scene of `count` objects (1 to 9) in different cells of the 3x3 grid of places.

    In a share of `crowd_share` all are of one shape. In the held-out split all objects (of a crowd: one at least) are
    of held-out triples.
    """
    height, width = draw_size(dice, sides, large_share)
    if count > 1 and dice.chance(crowd_share):
        cells, kinds = _crowd(dice, split, count)
    else:
        cells = sorted(dice.some(range(9), count))
        kinds = _kinds(dice, split, cells)
    extent = (height, width, min(height, width))
    things = [
        _place(dice, *kind, cell, _free_radius(cell, cells), extent) for kind, cell in zip(kinds, cells, strict=True)
    ]
    return Scene(tuple(things), height, width)


def _place(dice: Dice, colour: str, shape: str, cell: int, free: float, extent: tuple[int, int, int]) -> Thing:
    """Put an object into its cell: small, large or between; `free` is the largest radius its neighbours allow."""
    height, width, unit = extent
    least = 8.0 / unit
    size = dice.pick(("small", "large", ""))
    if free > 0.17 and dice.chance(0.5):
        radius, size = dice.uniform(0.17, free), "large"
    elif size == "small":
        radius = dice.uniform(max(0.055, least), max(0.085, least + 0.01))
    elif size == "large":
        radius = dice.uniform(0.132, 0.163)
    else:
        radius = dice.uniform(0.095, 0.125)
    radius *= unit
    row, column = divmod(cell, 3)
    x = _centre(dice, (column + 0.5) * width / 3, radius, width)
    y = _centre(dice, (row + 0.5) * height / 3, radius, height)
    return Thing(colour, shape, cell, size, x, y, radius)


def _centre(dice: Dice, middle: float, radius: float, side: int) -> float:
    """One coordinate of an object near the middle of its cell, the object wholly within the picture."""
    play = min(max(0.0, side / 6 - radius), 0.1 * side)
    return min(max(middle + dice.uniform(-1, 1) * play, radius), side - radius)


def _free_radius(cell: int, cells: list[int]) -> float:
    """The radius (in shorter sides) up to which an object leaves its neighbours' cells alone."""
    others = [other for other in cells if other != cell]
    if not others:
        return 0.46 if cell == 4 else 0.27
    steps = [max(abs(cell // 3 - other // 3), abs(cell % 3 - other % 3)) for other in others]
    return 0.24 if min(steps) == 2 else 0.16


@dataclass(frozen=True)
class Look:
    """What pictures have in common that are drawn alike: a tone for each colour, the paper, and a seed of the rest."""

    tones: dict[str, Colour]
    paper: Colour
    seed: int


def draw_look(dice: Dice, scenes: Sequence[Scene]) -> Look:
    """A look whose paper differs from every object of the scenes."""
    colours = dict.fromkeys(thing.colour for scene in scenes for thing in scene.things)
    tones = {colour: draw_tone(colour, dice) for colour in colours}
    return Look(tones, _paper(list(tones.values()), dice), dice.integer(0, 2**31))


def paint(scene: Scene, dice: Dice, look: Look | None = None, *, ease: float = 0.0) -> np.ndarray:
    """Draw a scene: pixels uint8 [H, W, 3]. The style (program, fill, lines, background, wear) is drawn too.

    Under a `look` nothing is drawn from `dice`: an object that two scenes share is the same in both pictures.
    A share `ease` of the pictures is plain: filled objects on one colour. A learner may start with those.
    """
    if ease and dice.chance(ease):
        return _paint_plainly(scene, dice)
    common = Dice(np.random.default_rng(look.seed)) if look else dice
    tones = [look.tones[thing.colour] if look else draw_tone(thing.colour, dice) for thing in scene.things]
    paper = look.paper if look else _paper(tones, dice)
    pixels = background(scene.height, scene.width, paper, common)
    kind = common.uniform()
    style = "filled" if kind < 0.6 else "outlined" if kind < 0.75 else "edged" if kind < 0.9 else "mixed"
    smooth, by_pillow = common.chance(0.7), common.chance(0.2)
    edge: Colour = (0, 0, 0) if common.chance(0.8) else (70, 70, 70)
    for thing, tone in zip(scene.things, tones, strict=True):
        own = Dice(np.random.default_rng([look.seed, thing.cell])) if look else dice
        mine = own.pick(("filled", "outlined", "edged")) if style == "mixed" else style
        points = outline(thing.shape, own) * thing.radius + (thing.x, thing.y)
        pixels = _draw_thing(pixels, points, thing, mine, (tone, edge), (smooth, by_pillow), own)
    return wear(pixels, common)


def _paint_plainly(scene: Scene, dice: Dice) -> np.ndarray:
    """Filled objects with smooth edges on paper of one colour."""
    tones = [draw_tone(thing.colour, dice) for thing in scene.things]
    pixels = np.full((scene.height, scene.width, 3), _paper(tones, dice), np.uint8)
    for thing, tone in zip(scene.things, tones, strict=True):
        fill_polygon(pixels, outline(thing.shape, dice) * thing.radius + (thing.x, thing.y), tone, smooth=True)
    return pixels


def _draw_thing(
    pixels: np.ndarray,
    points: np.ndarray,
    thing: Thing,
    style: str,
    inks: tuple[Colour, Colour],
    means: tuple[bool, bool],
    dice: Dice,
) -> np.ndarray:
    """Draw one object in a style: `inks` tone and edge; `means` smooth lines, and by Pillow instead of OpenCV."""
    (tone, edge), (smooth, by_pillow) = inks, means
    thick = max(3, round(thing.radius * dice.uniform(0.14, 0.26)))
    thin = max(1, round(thing.radius * dice.uniform(0.03, 0.08)))
    if style == "outlined" and thing.radius < 11:
        style = "filled"  # so small an outline would close
    if style == "outlined":
        points = (points - (thing.x, thing.y)) * (1 - 0.5 * thick / thing.radius) + (thing.x, thing.y)
    if by_pillow:
        fill, line = (None, tone) if style == "outlined" else (tone, edge if style == "edged" else None)
        return pillow_polygon(pixels, points, fill, line, thick if style == "outlined" else thin)
    if style == "outlined":
        stroke_polygon(pixels, points, tone, thick, smooth)
        return pixels
    fill_polygon(pixels, points, tone, smooth)
    if style == "edged":
        stroke_polygon(pixels, points, edge, thin, smooth)
    return pixels


def _paper(tones: list[Colour], dice: Dice) -> Colour:
    """A background colour that differs from every object's; white, black or grey where none is found soon."""
    for paper in (*(draw_paper(dice) for _ in range(6)), (255, 255, 255), (0, 0, 0), (205, 205, 205), (75, 75, 75)):
        if all(distance(paper, tone) > 110 for tone in tones):
            return paper
    return max(((225, 240, 215), (60, 75, 95)), key=lambda paper: min(distance(paper, tone) for tone in tones))


def distance(one: Colour, other: Colour) -> float:
    """Weighted distance of two colours: the eye sees green best."""
    r, g, b = (float(p) - float(q) for p, q in zip(one, other, strict=True))
    return (1.5 * r * r + 2.0 * g * g + 1.0 * b * b) ** 0.5
