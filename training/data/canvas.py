"""Canvas: backgrounds behind drawn things, and what cameras, scanners and file formats do to a picture."""

import functools

import cv2
import numpy as np

from training.data.dice import Dice

Colour = tuple[int, int, int]
_BANK = 1100  # pixels a side of the noise that all textures are cut from


@functools.cache
def _noise_bank() -> np.ndarray:
    """Normal noise int8 [_BANK, _BANK, 3] of deviation 40; the same in every run."""
    noise = np.random.default_rng(7).standard_normal((_BANK, _BANK, 3), np.float32) * 40
    return np.clip(noise, -127, 127).astype(np.int8)


def _noise(height: int, width: int, dice: Dice) -> np.ndarray:
    """A random cut of the noise, int8 [H, W, 3]."""
    bank = _noise_bank()
    if height > _BANK or width > _BANK:
        bank = np.tile(bank, (-(-height // _BANK) + 1, -(-width // _BANK) + 1, 1))
    top, left = dice.integer(0, bank.shape[0] - height), dice.integer(0, bank.shape[1] - width)
    return bank[top : top + height, left : left + width]


def draw_paper(dice: Dice) -> Colour:
    """A background colour: white, nearly white, pastel, grey, dark, black or anything."""
    kind = dice.uniform()
    if kind < 0.3:
        return (255, 255, 255)
    if kind < 0.45:
        level = dice.integer(225, 254)
        return (level, level, level)
    if kind < 0.6:
        return (dice.integer(190, 255), dice.integer(190, 255), dice.integer(190, 255))
    if kind < 0.7:
        level = dice.integer(60, 200)
        return (level, level, level)
    if kind < 0.85:
        return (0, 0, 0) if dice.chance(0.5) else (dice.integer(0, 50), dice.integer(0, 50), dice.integer(0, 60))
    return (dice.integer(0, 255), dice.integer(0, 255), dice.integer(0, 255))


def background(height: int, width: int, paper: Colour, dice: Dice) -> np.ndarray:
    """Pixels uint8 [H, W, 3] around one colour: plain, a gradient, grainy, cloudy or lined."""
    pixels = np.empty((height, width, 3), np.uint8)
    cv2.rectangle(pixels, (0, 0), (width, height), paper, cv2.FILLED)  # five times faster than broadcasting in numpy
    kind = dice.uniform()
    if kind < 0.58:
        return pixels
    if kind < 0.72:
        return _gradient(pixels, paper, dice)
    if kind < 0.84:
        return grain(pixels, dice.uniform(0.08, 0.4), dice)
    if kind < 0.93:
        coarse = _noise(max(2, height // 24), max(2, width // 24), dice).astype(np.int16)
        clouds = cv2.resize(coarse * 2, (width, height), interpolation=cv2.INTER_CUBIC)
        return cv2.addWeighted(pixels, 1.0, clouds, dice.uniform(0.05, 0.25), 0.0, dtype=cv2.CV_8U)
    return _lines(pixels, paper, dice)


def _gradient(pixels: np.ndarray, paper: Colour, dice: Dice) -> np.ndarray:
    height, width = pixels.shape[:2]
    across = np.linspace(-1, 1, width)[None, :, None] * dice.uniform(-1, 1)
    down = np.linspace(-1, 1, height)[:, None, None] * dice.uniform(-1, 1)
    change = np.array([dice.uniform(-30, 30), dice.uniform(-30, 30), dice.uniform(-30, 30)])
    shades = (across + down).astype(np.float32) * change.astype(np.float32) + np.array(paper, np.float32)
    return cv2.convertScaleAbs(np.maximum(shades, 0))


def _lines(pixels: np.ndarray, paper: Colour, dice: Dice) -> np.ndarray:
    """Squared or ruled paper: faint lines."""
    step = dice.integer(8, 40)
    change = dice.integer(10, 28) * (-1 if sum(paper) > 380 else 1)
    colour = tuple(min(255, max(0, part + change)) for part in paper)
    pixels[::step, :] = colour
    if dice.chance(0.6):
        pixels[:, ::step] = colour
    return pixels


def grain(pixels: np.ndarray, strength: float, dice: Dice) -> np.ndarray:
    """The pixels with noise of a deviation of 40 * strength."""
    noise = _noise(pixels.shape[0], pixels.shape[1], dice).astype(np.float32)
    return cv2.addWeighted(pixels, 1.0, noise, strength, 0.0, dtype=cv2.CV_8U)


def wear(pixels: np.ndarray, dice: Dice) -> np.ndarray:
    """What happens to a finished picture: nothing, JPEG, blur, noise, another brightness, a change of size."""
    if dice.chance(0.45):
        return pixels
    if dice.chance(0.12):
        pixels = cv2.GaussianBlur(pixels, (3, 3), dice.uniform(0.4, 1.1))
    if dice.chance(0.15):
        pixels = grain(pixels, dice.uniform(0.05, 0.35), dice)
    if dice.chance(0.2):
        pixels = cv2.convertScaleAbs(pixels, alpha=dice.uniform(0.85, 1.1), beta=dice.uniform(0, 15))
    if dice.chance(0.4):
        pixels = jpeg(pixels, dice.integer(35, 95))
    return pixels


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """The pixels as they come back from a JPEG file of this quality."""
    _, data = cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.ascontiguousarray(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[:, :, ::-1])


def draw_size(dice: Dice, sides: tuple[int, int], large_share: float) -> tuple[int, int]:
    """Height and width: mostly near square within `sides`, sometimes wide or tall, rarely up to 1024 pixels."""
    low, high = sides
    if dice.chance(large_share):
        low, high = high, 1024
    side = dice.integer(low, high) if dice.chance(0.7) else dice.pick((low, (low + high) // 2, high))
    if dice.chance(0.5):
        return side, side
    other = min(high, max(low, round(side * dice.uniform(0.6, 1.6))))
    return (side, other) if dice.chance(0.5) else (other, side)
