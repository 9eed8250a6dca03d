"""Fonts: the typefaces words are drawn in, and a text drawn as a mask of ink.

Four sources: free TrueType families (Debian packages fonts-dejavu, fonts-liberation, fonts-freefont-ttf, fonts-roboto,
fonts-open-sans, fonts-lato, fonts-comic-neue, fonts-inconsolata), Pillow's own font, OpenCV's own font, and Hershey's
strokes (package Hershey-Fonts), which older OpenCV programs draw with. Families that are missing are left out.
"""

import functools
import itertools
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from HersheyFonts import HersheyFonts
from PIL import Image, ImageDraw, ImageFont

FOLDERS = (Path("/usr/share/fonts/truetype"), Path("/usr/share/fonts/opentype"))
TRAINING_FILES = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSerif", "DejaVuSerif-Bold",
    "DejaVuSansCondensed", "FreeSans", "FreeSansBold", "FreeSansOblique", "FreeSerif", "FreeSerifBold", "FreeMono",
    "FreeMonoBold", "LiberationSans-Regular", "LiberationSans-Bold", "LiberationSans-Italic", "LiberationMono-Regular",
    "LiberationSansNarrow-Bold", "LiberationSerif-Regular", "LiberationSerif-Bold", "OpenSans-Regular", "OpenSans-Bold",
    "Roboto-Regular", "Roboto-Bold", "ComicNeue-Bold", "ComicNeue-Regular",
)  # fmt: skip
HELD_OUT_FILES = ("Lato-Regular", "Lato-Bold", "Lato-Heavy", "Inconsolata", "OpenSans-CondBold", "DejaVuSerif-Italic")
TRAINING_STROKES = ("futural", "rowmans", "futuram", "timesr", "rowmant")
HELD_OUT_STROKES = ("rowmand", "timesrb")
_MARGIN = 4  # pixels of empty mask around the ink


@dataclass(frozen=True)
class Lettering:
    """A text as ink: `mask` uint8 [h, w], 255 where inked; `centres` (x, y) in pixels of every character."""

    mask: np.ndarray
    centres: tuple[tuple[float, float], ...]


@functools.cache
def faces(held_out: bool) -> tuple[str, ...]:
    """The names of the typefaces that are installed, of training or held out: `file NAME`, `strokes NAME`, ..."""
    files = HELD_OUT_FILES if held_out else TRAINING_FILES
    strokes = HELD_OUT_STROKES if held_out else TRAINING_STROKES
    own = () if held_out else ("pillow", "opencv 0", "opencv 2", "opencv 6")
    found = tuple(f"file {name}" for name in files if _path(name) is not None)
    return (*found, *(f"strokes {name}" for name in strokes), *own)


@functools.cache
def _path(name: str) -> Path | None:
    for folder in FOLDERS:
        for ending in ("ttf", "otf"):
            for path in sorted(folder.rglob(f"{name}.{ending}")):
                return path
    return None


def letter(text: str, face: str, height: int, weight: float, smooth: bool) -> Lettering:
    """Draw a text in a typeface; capitals are about `height` pixels high. `weight` 0..1 thickens drawn strokes."""
    source, _, name = face.partition(" ")
    if source == "strokes":
        return _strokes(text, name, height, weight, smooth)
    if source == "opencv":
        return _opencv(text, int(name), height, weight, smooth)
    return _truetype(text, name, height, smooth)


@functools.lru_cache(maxsize=512)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    path = _path(name) if name else None
    if path is not None:
        return ImageFont.truetype(path, size)
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow without FreeType has no font of any size; install a wheel that has it")
    return font


def _truetype(text: str, name: str, height: int, smooth: bool) -> Lettering:
    font = _font(name, max(8, round(height * 1.4)))
    left, top, right, bottom = font.getbbox(text)
    size = (int(right - left) + 2 * _MARGIN, int(bottom - top) + 2 * _MARGIN)
    picture = Image.new("L", size, 0)
    drawing = ImageDraw.Draw(picture)
    drawing.fontmode = "L" if smooth else "1"
    drawing.text((_MARGIN - left, _MARGIN - top), text, fill=255, font=font)
    steps = [font.getlength(text[:i]) for i in range(len(text) + 1)]
    return Lettering(np.array(picture), _centres(steps, _MARGIN - left, size[1]))


def _centres(steps: list[float], start: float, height: int) -> tuple[tuple[float, float], ...]:
    """The middle between each two neighbouring pen positions, half way up."""
    return tuple((start + (one + two) / 2, height / 2) for one, two in itertools.pairwise(steps))


def _opencv(text: str, font: int, height: int, weight: float, smooth: bool) -> Lettering:
    scale, thickness = height / 21, max(1, round(height * (0.04 + 0.1 * weight)))
    (width, tall), below = cv2.getTextSize(text, font, scale, thickness)
    mask = np.zeros((tall + below + 2 * _MARGIN, width + 2 * _MARGIN), np.uint8)
    line = cv2.LINE_AA if smooth else cv2.LINE_8
    cv2.putText(mask, text, (_MARGIN, _MARGIN + tall), font, scale, 255, thickness, line)
    steps = [cv2.getTextSize(text[:i], font, scale, thickness)[0][0] for i in range(1, len(text) + 1)]
    return Lettering(mask, _centres([0, *steps], _MARGIN, mask.shape[0]))


@functools.cache
def _glyphs(name: str) -> dict[str, tuple[float, float, list[np.ndarray]]]:
    """Left edge, width and the strokes [points, 2] of every printable character; capitals are 21 high."""
    source = HersheyFonts()
    source.load_default_font(name)
    glyphs = {}
    for code in range(32, 127):
        for glyph in source.glyphs_for_text(chr(code)):
            strokes = [np.array(stroke, float) for stroke in glyph.strokes if len(stroke) > 1]
            glyphs[chr(code)] = (float(glyph.left_offset), float(glyph.char_width), strokes)
    return glyphs


def _strokes(text: str, name: str, height: int, weight: float, smooth: bool) -> Lettering:
    glyphs, scale = _glyphs(name), height / 21
    thickness = max(1, round(height * (0.03 + 0.12 * weight)))
    pen, steps = 0.0, [0.0]
    lines: list[np.ndarray] = []
    for character in text:
        left, width, strokes = glyphs[character]
        lines.extend((stroke - (left, 0)) * scale + (pen, 0) for stroke in strokes)
        pen += width * scale
        steps.append(pen)
    top = min(float(line[:, 1].min()) for line in lines)
    bottom = max(float(line[:, 1].max()) for line in lines)
    pad = _MARGIN + thickness
    mask = np.zeros((int(bottom - top) + 2 * pad + 1, int(pen) + 2 * pad + 1), np.uint8)
    fixed = [np.round((line - (0, top) + pad) * 16).astype(np.int32) for line in lines]
    cv2.polylines(mask, fixed, False, 255, thickness, cv2.LINE_AA if smooth else cv2.LINE_8, 4)
    return Lettering(mask, _centres(steps, pad, mask.shape[0]))
