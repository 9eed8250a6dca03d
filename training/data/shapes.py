"""Shapes: outlines of the drawn objects, the colours that have names, and two programs that draw them.

An outline is a polygon of unit radius, so that one way of drawing serves all shapes.
"""

import math

import cv2
import numpy as np
from PIL import Image, ImageDraw

from training.data.dice import Dice

Colour = tuple[int, int, int]

# Several tones a name; every tone is jittered when drawn.
TONES: dict[str, tuple[Colour, ...]] = {
    "red": ((225, 25, 25), (255, 0, 0), (255, 0, 0), (200, 20, 30), (220, 40, 40)),
    "green": ((20, 160, 40), (0, 128, 0), (0, 200, 0), (34, 139, 34), (40, 180, 70), (0, 255, 0)),
    "blue": ((20, 40, 220), (0, 0, 255), (0, 0, 255), (30, 80, 210), (20, 20, 180), (45, 95, 230), (0, 0, 139)),
    "yellow": ((250, 225, 30), (255, 255, 0), (255, 255, 0), (255, 215, 0), (240, 210, 20), (255, 230, 50)),
    "orange": ((255, 140, 0), (255, 165, 0), (245, 120, 15), (250, 130, 20)),
    "purple": ((128, 0, 128), (140, 40, 190), (110, 30, 160), (150, 50, 170), (148, 0, 211)),
    "pink": ((255, 150, 190), (255, 105, 180), (255, 175, 200), (255, 192, 203)),
    "brown": ((120, 70, 25), (139, 69, 19), (110, 60, 30), (150, 85, 40), (165, 42, 42)),
    "black": ((10, 10, 10), (0, 0, 0), (25, 25, 25)),
    "white": ((250, 250, 250), (255, 255, 255), (240, 240, 240)),
    "grey": ((128, 128, 128), (150, 150, 150), (110, 110, 112), (169, 169, 169)),
    "cyan": ((0, 225, 230), (0, 255, 255), (30, 200, 215), (40, 215, 225)),
}
COLOURS = tuple(TONES)
SHAPES = (
    "circle", "square", "triangle", "rectangle", "star", "heart", "cross", "diamond", "oval", "hexagon", "arrow",
)  # fmt: skip
PLURALS = {shape: shape + ("es" if shape == "cross" else "s") for shape in SHAPES}

_SUBPIXEL_BITS = 4


def draw_tone(name: str, dice: Dice) -> Colour:
    """A tone of the named colour, slightly changed."""
    r, g, b = dice.pick(TONES[name])
    drift = dice.integer(-10, 10)
    tint = (dice.integer(-6, 6), dice.integer(-6, 6)) if name != "grey" else (0, 0)
    return _clip(r + drift + tint[0]), _clip(g + drift), _clip(b + drift + tint[1])


def _clip(value: int) -> int:
    return min(255, max(0, value))


def _regular(corners: int, phase: float = -math.pi / 2) -> np.ndarray:
    angle = phase + np.arange(corners) * (2 * math.pi / corners)
    return np.stack([np.cos(angle), np.sin(angle)], 1)


_T = np.linspace(0, 2 * math.pi, 56, endpoint=False)
_HEART = (
    np.stack(
        [16 * np.sin(_T) ** 3, -(13 * np.cos(_T) - 5 * np.cos(2 * _T) - 2 * np.cos(3 * _T) - np.cos(4 * _T)) - 2.5], 1
    )
    / 16.0
)
_CIRCLE = _regular(64)
_BOX = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
_ARROW = np.array([[-1, -0.28], [0.1, -0.28], [0.1, -0.75], [1, 0], [0.1, 0.75], [0.1, 0.28], [-1, 0.28]])


def outline(shape: str, dice: Dice) -> np.ndarray:
    """The polygon [corners, 2] of a shape within the unit circle, in one of its proportions and rotations."""
    lean = dice.uniform(-0.18, 0.18) if dice.chance(0.5) else 0.0
    if shape == "circle":
        return _CIRCLE
    if shape == "oval":
        return _turn(_CIRCLE * (1.0, dice.uniform(0.45, 0.68)), lean + (math.pi / 2 if dice.chance(0.35) else 0.0))
    if shape == "square":
        return _turn(_BOX * 0.78, lean)
    if shape == "rectangle":
        tall = math.pi / 2 if dice.chance(0.4) else 0.0
        return _turn(_BOX * (0.9, dice.uniform(0.32, 0.58)), lean + tall)
    if shape == "diamond":
        return _turn(_regular(4) * (dice.uniform(0.58, 1.0), 1.0), lean * 0.4)
    if shape == "triangle":
        turn = lean if dice.chance(0.7) else dice.uniform(0, 2 * math.pi)
        return _turn(_regular(3) * (dice.uniform(0.85, 1.1), 1.0), turn)
    if shape == "hexagon":
        return _turn(_regular(6), dice.pick((0.0, math.pi / 6)) + lean)
    if shape == "star":
        points = 5 if dice.chance(0.88) else 6
        star = _regular(2 * points)
        star[1::2] *= dice.uniform(0.36, 0.5)
        return _turn(star, lean)
    if shape == "heart":
        return _turn(_HEART, lean)
    if shape == "cross":
        a = dice.uniform(0.2, 0.36)
        corners = [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a), (a, 1), (-a, 1), (-a, a), (-1, a)]
        cross = np.array([*corners, (-1, -a), (-a, -a)]) * 0.95
        return _turn(cross, math.pi / 4 if dice.chance(0.2) else lean)
    return _turn(_ARROW, dice.integer(0, 3) * math.pi / 2 + lean)


def _turn(points: np.ndarray, angle: float) -> np.ndarray:
    if not angle:
        return points
    c, s = math.cos(angle), math.sin(angle)
    return points @ np.array([[c, s], [-s, c]])


def fill_polygon(pixels: np.ndarray, points: np.ndarray, colour: Colour, smooth: bool) -> None:
    """Fill a polygon given in pixels into uint8 pixels [H, W, 3], in place, by OpenCV."""
    corners = np.round(points * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    cv2.fillPoly(pixels, [corners], colour, cv2.LINE_AA if smooth else cv2.LINE_8, _SUBPIXEL_BITS)


def stroke_polygon(pixels: np.ndarray, points: np.ndarray, colour: Colour, width: int, smooth: bool) -> None:
    """Draw a closed polygon's line, in place, by OpenCV."""
    corners = np.round(points * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    line = cv2.LINE_AA if smooth else cv2.LINE_8
    cv2.polylines(pixels, [corners], True, colour, max(1, width), line, _SUBPIXEL_BITS)


def pillow_polygon(
    pixels: np.ndarray, points: np.ndarray, fill: Colour | None, line: Colour | None, width: int
) -> np.ndarray:
    """The pixels with a polygon drawn by Pillow, which rounds corners and edges in its own way."""
    picture = Image.fromarray(pixels)
    corners = [(float(x), float(y)) for x, y in points]
    drawing = ImageDraw.Draw(picture)
    drawing.polygon(corners, fill=fill)
    if line is not None and width > 0:
        drawing.line([*corners, corners[0], corners[1]], fill=line, width=width, joint="curve")
    return np.array(picture)
