"""The size a frame is brought to, and the resampling itself, in float32.

Resampling is separable: each output row (then column) is a weighted sum of K source rows (columns). Two tables of taps
exist, bilinear as the model is served and antialiased bicubic for comparison. Output is made in bands of rows, so a
large source is never held as float32. Source: vision specification, sections 6.2, 6.3 and 15.
"""

import math

import numpy as np
from numpy.typing import NDArray

from mimo_cli.errors import MediaError
from mimo_cli.media.options import PixelOptions, ResizeFilter, SmallSideRule

MAX_ASPECT_RATIO = 200
_BAND_VALUES = 1 << 17  # float32 values of one band of source rows: 512 KiB stays in the processor's cache
_CUBIC_A = -0.5  # the coefficient of Pillow and of torch's antialiased bicubic (torch uses -0.75 without antialias)


def target_size(height: int, width: int, min_pixels: int, max_pixels: int, options: PixelOptions) -> tuple[int, int]:
    """Return (height, width) after resizing: multiples of one unit whose product keeps the limits.

    Rounds half to even. Raises MediaError for extreme aspect ratios and for sizes that would become zero.
    """
    unit = options.unit_px
    scaled = _scale_small_side(height, width, unit, options.small_side)
    floor = unit if options.small_side == "floor" else 0
    if scaled is None:
        if max(height, width) / min(height, width) > MAX_ASPECT_RATIO:
            raise MediaError(f"{width}x{height} pixels: one side is more than {MAX_ASPECT_RATIO} times the other")
        scaled = height, width
    sides = [max(floor, unit * round(side / unit)) for side in scaled]
    pixels = scaled[0] * scaled[1]
    if sides[0] * sides[1] > max_pixels:
        shrink = math.sqrt(pixels / max_pixels)
        sides = [max(floor, unit * math.floor(side / shrink / unit)) for side in scaled]
    elif sides[0] * sides[1] < min_pixels:
        grow = math.sqrt(min_pixels / pixels)
        sides = [unit * math.ceil(side * grow / unit) for side in scaled]
    if 0 in sides:
        raise MediaError(
            f"{width}x{height} pixels would shrink to {sides[1]}x{sides[0]} under the limit of {max_pixels} pixels",
            hint="raise the limit, or crop the picture: its sides differ too much for it",
        )
    return sides[0], sides[1]


def _scale_small_side(height: int, width: int, unit: int, rule: SmallSideRule) -> tuple[int, int] | None:
    """Bring a side below one unit up to it; None where the rule leaves the size alone (and tests the aspect ratio)."""
    small = min(height, width)
    if small >= unit or rule == "floor":
        return None
    to_integer = round if rule == "round" else int
    return to_integer(height * unit / small), to_integer(width * unit / small)


def resize(frame: NDArray[np.uint8], height: int, width: int, method: ResizeFilter) -> NDArray[np.float32]:
    """Resample frame [h, w, C] uint8 to a new float32 array [height, width, C] in 0..255.

    `bilinear` is not rounded, as served; `bicubic_antialias` is rounded and clipped to whole levels, as the image
    processor that uses it does. Peak memory beside the result: a band of 512 KiB and its temporaries.
    """
    taps = _bilinear_taps if method == "bilinear" else _bicubic_taps
    channels = frame.shape[2]
    rows, row_weights = taps(frame.shape[0], height)
    columns, column_weights = taps(frame.shape[1], width)
    columns = (columns[:, None] * channels + np.arange(channels)[:, None]).reshape(width * channels, -1)
    column_weights = column_weights.repeat(channels, 0)
    flat = np.ascontiguousarray(frame).reshape(frame.shape[0], -1)  # [h, w*C]
    resized = np.empty((height, width * channels), np.float32)
    band_rows = max(1, _BAND_VALUES // flat.shape[1])
    for start in range(0, height, band_rows):
        band = slice(start, start + band_rows)
        tall = _weighted_sum(flat, rows[band], row_weights[band, :, None], axis=0)  # [band, w*C]
        resized[band] = _weighted_sum(tall, columns, column_weights[None].swapaxes(1, 2), axis=1)  # [band, width*C]
    resized = resized.reshape(height, width, channels)
    if method == "bicubic_antialias":
        np.clip(np.rint(resized, out=resized), 0, 255, out=resized)
    return resized


def _weighted_sum(source: NDArray, taps: NDArray, weights: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Sum K slices of a 2-D array along an axis: result[i] = sum over k of weights[i, k] * source[taps[i, k]].

    taps [n, K]; weights [n, K, 1] for axis 0, [1, K, n] for axis 1.
    """
    total = np.take(source, taps[:, 0], axis, mode="clip") * weights[:, 0]  # uint8 x float32 is float32
    for k in range(1, taps.shape[1]):
        total += np.take(source, taps[:, k], axis, mode="clip") * weights[:, k]
    return total


def _bilinear_taps(size_in: int, size_out: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Two taps per output: half-pixel centres, edges clamped; coordinates in float32 as torch computes them."""
    scale = np.float32(size_in) / np.float32(size_out)
    # The product is exact in float64 and rounded once, as by the fused multiply-subtract that torch compiles to.
    position = (np.float64(scale) * (np.arange(size_out) + 0.5) - 0.5).astype(np.float32)
    position = np.maximum(position, np.float32(0))
    first = np.minimum(position.astype(np.int64), size_in - 1)
    share = np.clip(position - first.astype(np.float32), 0, 1).astype(np.float32)
    return np.stack([first, np.minimum(first + 1, size_in - 1)], 1), np.stack([np.float32(1) - share, share], 1)


def _bicubic_taps(size_in: int, size_out: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Taps of a cubic kernel, widened when reducing; weights outside the frame are dropped, the others sum to 1."""
    scale = size_in / size_out
    stretch = max(scale, 1.0)
    centre = (np.arange(size_out) + 0.5) * scale
    first = np.maximum(np.floor(centre - 2 * stretch + 0.5), 0).astype(np.int64)
    taps = first[:, None] + np.arange(math.ceil(4 * stretch) + 1)
    distance = np.abs((taps + 0.5 - centre[:, None]) / stretch)
    near = ((_CUBIC_A + 2) * distance - (_CUBIC_A + 3)) * distance**2 + 1
    far = ((_CUBIC_A * distance - 5 * _CUBIC_A) * distance + 8 * _CUBIC_A) * distance - 4 * _CUBIC_A
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0.0)) * (taps < size_in)
    weights /= weights.sum(1, keepdims=True)
    return np.minimum(taps, size_in - 1), weights.astype(np.float32)
