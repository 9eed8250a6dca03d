"""Words: rendered words of the vocabulary, free strings and numbers, to be read exactly as they are written.

Answer form: the text itself, in the case it is drawn in; for the ink, a colour.
"""

import itertools

import cv2
import numpy as np

from training.data.canvas import Colour, background, draw_paper, wear
from training.data.dice import Dice
from training.data.fonts import Lettering, faces, letter
from training.data.sample import Picture, Sample, Split
from training.data.shapes import COLOURS, TONES, draw_tone
from training.data.vocabulary import VOCABULARY
from training.data.wording import Wording

READ = Wording(
    (
        "What does it say?", "What is written here?", "Read the word.", "Read the text.", "What word is this?",
        "Which word do you see?", "What does the picture say?", "Read this please.", "What is the text in the image?",
        "What text is shown?", "Tell me what is written.", "Transcribe the text.",
        "Read what is written in the picture.", "What do you read?", "Which text is in this image?",
        "What does the sign say?", "Please read the text in this image.", "Read the text in the image.",
    ),
    (
        "Say what is written here.", "What can you read?", "Which letters are in the picture?",
        "What is the written text?",
    ),
)  # fmt: skip
READ_NUMBER = Wording(
    (
        "What number is this?", "Which number do you see?", "Read the number.", "What number is shown?",
        "Which number is written here?", "What is the number in the image?", "Tell me the number.",
        "What number does it say?",
    ),
    ("Say which number is written.", "Read the digits.", "What number can you read?"),
)  # fmt: skip
INK = Wording(
    (
        "What colour is the text?", "What color is the word?", "In which colour is the word written?",
        "Which color does the text have?", "What is the colour of the letters?", "Name the color of the text.",
        "What colour are the letters?", "Tell me the colour of the writing.",
    ),
    ("Say which colour the text has.", "What color is the writing?", "The letters have what colour?"),
)  # fmt: skip

LETTERS = "abcdefghijklmnopqrstuvwxyz"
ALONE = "ABDEFGHJKLMNPQRTUVWXYZabdefghjmnqrty23456789"  # characters that one can tell without another beside them


def draw_text(dice: Dice, kind: str) -> str:
    """A text of the kind: `word` of the vocabulary, `free` letters, `number`, or `words`, two of them."""
    if kind == "number":
        digits = dice.pick((1, 2, 2, 3, 3, 4, 5, 6))
        first = dice.pick("23456789" if digits == 1 else "123456789")
        return first + "".join(dice.pick("0123456789") for _ in range(digits - 1))
    if kind == "word":
        text = dice.pick(VOCABULARY)
    elif kind == "words":
        text = f"{dice.pick(VOCABULARY)} {dice.pick(VOCABULARY)}"
    else:
        text = "".join(dice.pick(LETTERS) for _ in range(dice.pick((1, 2, 3, 4, 4, 5, 5, 6, 6))))
    text = dice.pick((text, text, text.upper(), text.capitalize()))
    if len(text) == 1 and text not in ALONE:
        return dice.pick(ALONE)
    return text


def _lettering(text: str, face: str, dice: Dice, large: bool) -> Lettering:
    """The text as ink, turned by a few degrees now and then."""
    height = dice.integer(40, 90) if large else round(13 + 27 * dice.uniform() ** 1.3)
    lettering = letter(text, face, height, dice.uniform(), dice.chance(0.85))
    if not dice.chance(0.35):
        return lettering
    return _turned(lettering, dice.uniform(-8, 8))


def _turned(lettering: Lettering, degrees: float) -> Lettering:
    """The lettering turned about its middle, on a mask large enough to hold it."""
    h, w = lettering.mask.shape
    turn = cv2.getRotationMatrix2D((w / 2, h / 2), degrees, 1.0)
    cos, sin = abs(turn[0, 0]), abs(turn[0, 1])
    wide, tall = int(h * sin + w * cos) + 2, int(h * cos + w * sin) + 2
    turn[:, 2] += ((wide - w) / 2, (tall - h) / 2)
    mask = cv2.warpAffine(lettering.mask, turn, (wide, tall), flags=cv2.INTER_LINEAR)
    centres = np.array(lettering.centres) @ turn[:, :2].T + turn[:, 2]
    return Lettering(mask, tuple((float(x), float(y)) for x, y in centres))


def _inks(dice: Dice) -> tuple[Colour, str | None, Colour]:
    """Ink, its name where it has one, and a paper it stands out from: dark on light, light on dark, or coloured."""
    kind = dice.uniform()
    if kind < 0.35:
        ink: Colour = (0, 0, 0) if dice.chance(0.6) else (dice.integer(0, 60), dice.integer(0, 60), dice.integer(0, 60))
        name = "black" if max(ink) < 30 else None
    elif kind < 0.55:
        ink = (255, 255, 255) if dice.chance(0.6) else (dice.integer(215, 255), dice.integer(215, 255), 230)
        name = "white" if min(ink) > 240 else None
    else:
        name = dice.pick(COLOURS)
        ink = draw_tone(name, dice)
    for paper in (*(draw_paper(dice) for _ in range(5)), (255, 255, 255), (0, 0, 0), TONES["grey"][0]):
        if abs(_luminance(paper) - _luminance(ink)) > 75:
            return ink, name, paper
    return ink, name, (0, 0, 0) if _luminance(ink) > 100 else (255, 255, 255)


def _luminance(colour: Colour) -> float:
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


Box = tuple[float, float, float, float]


def ink_boxes(lettering: Lettering) -> list[Box]:
    """x0, y0, x1, y1 in pixels of the mask: each character as wide as its neighbours let it be, as high as its ink."""
    xs = [x for x, _ in lettering.centres]
    steps = [(b - a) for a, b in itertools.pairwise(xs)] or [0.8 * lettering.mask.shape[0]]
    boxes: list[Box] = []
    for i, x in enumerate(xs):
        before, after = steps[max(0, i - 1)] / 2, steps[min(i, len(steps) - 1)] / 2
        x0, x1 = max(0, round(x - before)), max(round(x + after), round(x - before) + 1)
        inked = np.flatnonzero(lettering.mask[:, x0:x1].max(1, initial=0) > 100)
        y0, y1 = (int(inked[0]), int(inked[-1]) + 1) if len(inked) else (0, 0)
        boxes.append((x0, y0, x1, y1))
    return boxes


def _as_shares(boxes: list[Box], left: int, top: int, width: int, height: int) -> list[Box]:
    """Boxes of a mask that stands at `left` and `top`, as shares of the picture's width and height."""
    return [
        ((left + x0) / width, (top + y0) / height, (left + x1) / width, (top + y1) / height) for x0, y0, x1, y1 in boxes
    ]


def _inked(pixels: np.ndarray, mask: np.ndarray, ink: Colour) -> np.ndarray:
    """The pixels [h, w, 3] with ink where the mask [h, w] covers them."""
    cover = cv2.merge([mask] * 3)
    return cv2.add(
        cv2.multiply(pixels, 255 - cover, scale=1 / 255), cv2.multiply(np.full_like(pixels, ink), cover, scale=1 / 255)
    )


def render(text: str, face: str, dice: Dice, *, large: bool = False) -> tuple[np.ndarray, dict]:
    """A picture uint8 [H, W, 3] with the text on it, and its labels (letters, their centres as fractions, ink)."""
    lettering = _lettering(text, face, dice, large)
    h, w = lettering.mask.shape
    height = max(96, h + round(dice.uniform(0, 0.9) ** 2 * 2 * h) + dice.integer(0, 40))
    width = max(96, w + round(dice.uniform(0, 0.9) ** 2 * w) + dice.integer(0, 30))
    if dice.chance(0.3):
        height = width = max(height, width)
    top, left = dice.integer(0, height - h), dice.integer(0, width - w)
    if dice.chance(0.4):
        top, left = (height - h) // 2, (width - w) // 2
    ink, name, paper = _inks(dice)
    pixels = background(height, width, paper, dice)
    part = pixels[top : top + h, left : left + w]
    part[:] = _inked(part, lettering.mask, ink)
    centres = [((left + x) / width, (top + y) / height) for x, y in lettering.centres]
    boxes = _as_shares(ink_boxes(lettering), left, top, width, height)
    return wear(pixels, dice), {"letters": text, "centres": centres, "boxes": boxes, "ink": name, "face": face}


def render_sheet(dice: Dice, split: Split, *, ease: float = 0.0) -> tuple[np.ndarray, dict]:
    """Some lines of random characters, each in a typeface of its own: pixels uint8 [H, W, 3] and labels as of `render`.

    Nobody is asked about such a picture; it shows a learner ten times as many characters as a word does. A share
    `ease` is plain: black on white or white on black, small letters only.
    """
    height, width = dice.integer(150, 210), dice.integer(150, 230)
    is_plain = dice.chance(ease)
    ink, _, paper = _inks(dice)
    if is_plain:
        ink, paper = dice.pick((((0, 0, 0), (255, 255, 255)), ((255, 255, 255), (0, 0, 0))))
    cover = np.zeros((height, width), np.uint8)
    letters, top = "", dice.integer(0, 16)
    boxes: list[Box] = []
    while True:
        tall = round(15 + 23 * dice.uniform() ** 1.3)
        characters = LETTERS if is_plain or dice.chance(0.5) else LETTERS + LETTERS.upper() + "0123456789"
        text = "".join(dice.pick(characters) for _ in range(int(width / tall * 0.9)))
        line = letter(text, dice.pick(faces(split == "held_out")), tall, dice.uniform(), dice.chance(0.85))
        mask, left = line.mask, dice.integer(-2, 12)
        if top + mask.shape[0] > height:
            break
        ends = min(width, left + mask.shape[1])
        start = max(0, left)
        cover[top : top + mask.shape[0], start:ends] = mask[:, start - left : ends - left]
        letters += text
        boxes += _as_shares(ink_boxes(line), left, top, width, height)
        top += mask.shape[0] - 4 + dice.integer(0, 8)
    pixels = np.full((height, width, 3), paper, np.uint8) if is_plain else background(height, width, paper, dice)
    pixels = _inked(pixels, cover, ink)
    return pixels if is_plain else wear(pixels, dice), {"letters": letters, "boxes": boxes, "sheet": True}


def make(rng: np.random.Generator, split: Split, *, kind: str | None = None, large_share: float = 0.04) -> Sample:
    """A text to be read; `kind` is word, free, number or words, drawn where not given."""
    dice = Dice(rng)
    if kind is None:
        share = dice.uniform()
        kind = "word" if share < 0.42 else "free" if share < 0.72 else "number" if share < 0.92 else "words"
    text = draw_text(dice, kind)
    pixels, facts = render(text, dice.pick(faces(split == "held_out")), dice, large=dice.chance(large_share))
    if facts["ink"] and dice.chance(0.06):
        question, answer, kind = INK.say(dice, split), facts["ink"], "ink"
    else:
        wording = READ_NUMBER if kind == "number" and dice.chance(0.5) else READ
        question, answer = wording.say(dice, split), text
    user = (question, Picture(pixels)) if dice.chance(0.12) else (Picture(pixels), question)
    return Sample("words", user, answer, facts={"kind": kind, **facts})
