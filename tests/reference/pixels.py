"""Pictures and films to patches, in plain numpy: sizes, bilinear resizing, statistics, sampled frames and their times.

A picture is resized to multiples of 32 pixels, normalised per colour and cut into patches of 16 x 16 pixels and two
frames. Four patches that lie in a square make a unit, one token of the language model. Patches are listed unit after
unit, the four of a unit together, because they are merged at the end.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

PATCH = 16
UNIT = 32
"""Pixels along the side of a unit; widths and heights are multiples of it."""
MAX_ASPECT = 200
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET = ((123.675 / 255, 116.28 / 255, 103.53 / 255), (58.395 / 255, 57.12 / 255, 57.375 / 255))


def target_size(height: int, width: int, least: int, most: int) -> tuple[int, int]:
    """Return the height and width a frame is resized to, given the limits of its number of pixels.

    `round` takes halves to the even number, as the model's processor does: 720 lines become 704.
    """
    if min(height, width) < UNIT:
        scale = UNIT / min(height, width)
        height, width = round(height * scale), round(width * scale)
    elif max(height, width) / min(height, width) > MAX_ASPECT:
        raise ValueError(f"{width} x {height} pixels are too narrow")
    new_height, new_width = UNIT * round(height / UNIT), UNIT * round(width / UNIT)
    if new_height * new_width > most:
        shrink = math.sqrt(height * width / most)
        return UNIT * math.floor(height / shrink / UNIT), UNIT * math.floor(width / shrink / UNIT)
    if new_height * new_width < least:
        grow = math.sqrt(least / (height * width))
        return UNIT * math.ceil(height * grow / UNIT), UNIT * math.ceil(width * grow / UNIT)
    return new_height, new_width


def resize(rgb: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float64]:
    """Resize [h, w, 3] bilinearly: a pixel's middle lies at its half, edges repeat, nothing is smoothed or rounded."""
    rows, columns = _taps(rgb.shape[0], height), _taps(rgb.shape[1], width)
    values = rgb.astype(np.float64)
    (low, high, share) = rows
    values = values[low] * (1 - share)[:, None, None] + values[high] * share[:, None, None]
    (low, high, share) = columns
    return values[:, low] * (1 - share)[:, None] + values[:, high] * share[:, None]


def _taps(size: int, new_size: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """For each new position the two old ones beside it, and the share of the second; places are float32 numbers."""
    scale, middles = np.float32(size / new_size), np.arange(new_size, dtype=np.float32) + np.float32(0.5)
    source = np.maximum(middles * scale - np.float32(0.5), 0)
    low = np.minimum(np.floor(source).astype(np.int64), size - 1)
    return low, np.minimum(low + 1, size - 1), source - low


def normalise(values: NDArray[np.float64], statistics: Any = CLIP) -> Array:
    """Subtract the mean of each colour and divide by its deviation; both are given for colours from 0 to 1."""
    mean, deviation = (np.array(numbers) * 255 for numbers in statistics)
    return ((values - mean) / deviation).astype(np.float32)


def patches(frames: Array) -> tuple[Array, tuple[int, int, int]]:
    """Cut an even number of frames [F, H, W, 3] into rows [P, 1536]; returns them and the grid (steps, rows, columns).

    Rows go step, row of units, column of units, row in the unit, column in the unit; numbers in a row go colour, frame
    of the pair, line, pixel.
    """
    steps, rows, columns = frames.shape[0] // 2, frames.shape[1] // PATCH, frames.shape[2] // PATCH
    view = frames.reshape(steps, 2, rows // 2, 2, PATCH, columns // 2, 2, PATCH, 3)
    ordered = view.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)  # t, a, b, mh, mw, colour, frame, line, pixel
    return ordered.reshape(steps * rows * columns, -1), (steps, rows, columns)


def picture_patches(
    rgb: NDArray[np.uint8], processor: dict[str, Any], statistics: Any = CLIP
) -> tuple[Array, tuple[int, int, int]]:
    """Turn a picture [h, w, 3] into patches: it counts as two equal frames."""
    size = target_size(*rgb.shape[:2], processor["image_min_pixels"], processor["image_max_pixels"])
    frame = normalise(resize(rgb, *size), statistics)
    return patches(np.stack([frame, frame]))


def frames_patches(frames: NDArray[np.uint8], processor: dict[str, Any]) -> tuple[Array, tuple[int, int, int]]:
    """Turn sampled frames [F, h, w, 3] into patches: they share a budget of pixels, and an odd last one is repeated."""
    shared = 2 * processor["video_total_max_pixels"] // len(frames)
    most = max(processor["video_min_pixels"], min(processor["video_max_pixels"], shared))
    size = target_size(*frames.shape[1:3], processor["video_min_pixels"], most)
    resized = [normalise(resize(frame, *size)) for frame in frames]
    return patches(np.stack(resized + resized[-1:] * (len(resized) % 2)))


def sampled_frames(total: int, rate: float, fps: float = 1.0, least: int = 8, most: int = 3600) -> NDArray[np.int64]:
    """Choose frames of a film of `total` frames at `rate` per second: an even number, the first and last among them."""
    wanted = min(max(total / rate * fps, least + least % 2), most - most % 2)
    count = 2 * math.floor(min(wanted, total) / 2)
    return np.unique(np.linspace(0, total - 1, num=count, dtype=np.int64))


def frame_times(indices: NDArray[np.int64], rate: float) -> Array:
    """Return each frame's second, by one division in float32, the last one repeated if their number is odd."""
    times = indices.astype(np.float32) / np.float32(rate)
    return np.concatenate([times, times[-1:]]) if len(times) % 2 else times
